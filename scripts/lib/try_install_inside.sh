# What try-install does inside a booted machine; root there sources it and calls one of the functions.
# shellcheck shell=bash
set -euo pipefail
cd /root
url=http://127.0.0.1:8080
git_port=3000
own=(/opt/better-paas /opt/better-paas/server /opt/better-paas/firewall /usr/local/bin/better-paas /etc/better-paas.conf
	/etc/systemd/system/better-paas.socket /etc/systemd/system/better-paas.service)

fail() {
	echo "FAILED: $*"
	journalctl -u better-paas -n 30 --no-pager || true
	exit 1
}
state() { find "${own[@]}" -maxdepth 0 -printf '%p %U:%G %m %i %T@ %l\n'; }
api() {
	{ printf 'Authorization: Bearer ' && better-paas token; } | curl -fsS -m 10 -H @- "$url/api/$1" "${@:2}"
}
# until_true SECONDS COMMAND...
until_true() {
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		[ "$SECONDS" -lt "$end" ] || fail "$*"
		sleep 0.2
	done
}
visit() { [ "$(curl -s -m 5 -H 'Host: sample.localhost' http://127.0.0.1/)" = hello ]; }
alive() { [ "$(curl -s -m 5 "$url/healthz")" = ok ]; }

first() {
	echo "dry run:" && ./server install --dry-run
	[ ! -e /opt/better-paas ] && ! id paas 2>/dev/null || fail "a dry run has changed something"
	! setpriv --reuid=1234 --regid=1234 --clear-groups ./server install || fail "somebody who is not root installs"
	./server install | tee first.log
	[ "$(better-paas token)" = "$(sed -n 's/^The token: *//p' first.log)" ] || fail "another token is printed"
	curl -fsS -m 10 "$(sed -n 's/^The dashboard: *//p' first.log)/" | grep '<html' >/dev/null || fail "there is no dashboard"
	api session >/dev/null
	(cd / && better-paas config && better-paas lockouts)
	[ "$(setpriv --reuid=paas --regid=paas --init-groups better-paas token)" = "$(better-paas token)" ] || fail "paas has no token"
	! setpriv --reuid=1234 --regid=1234 --clear-groups better-paas token || fail "everybody has the token"
	nft list table inet better_paas >/dev/null || fail "there is no firewall"
	systemctl show -P MainPID better-paas | xargs -I@ grep VmRSS /proc/@/status
}

again() {
	local before
	before=$(state)
	./server install | tee again.log
	grep -q 'nothing to do' again.log || fail "a second run does something"
	better-paas install | grep 'nothing to do' >/dev/null || fail "the installed program installs itself again"
	[ "$before" = "$(state)" ] || fail "a second run changes something"
}

host_sample() {
	mkdir -p git/cgi-bin work
	(
		cd work
		printf 'web: python3 -u main.py\n' >Procfile
		cat >main.py <<-'END'
			import http.server, os
			class H(http.server.BaseHTTPRequestHandler):
			    def do_GET(self):
			        self.send_response(200); self.end_headers(); self.wfile.write(b'hello')
			http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), H).serve_forever()
		END
		git init -q -b main . && git add . && git -c user.name=a -c user.email=a@b.c commit -q -m one
	)
	git clone -q --bare work git/sample.git
	printf '#!/bin/sh\nexec git http-backend\n' >git/cgi-bin/git
	chmod 755 git/cgi-bin/git . && chmod -R a+rX git
	systemd-run -q --unit=git-host --working-directory=/root/git --setenv=GIT_PROJECT_ROOT=/root/git \
		--setenv=GIT_HTTP_EXPORT_ALL=1 --setenv=GIT_CONFIG_COUNT=1 --setenv=GIT_CONFIG_KEY_0=safe.directory \
		--setenv='GIT_CONFIG_VALUE_0=*' python3 -m http.server --cgi --bind 127.0.0.1 "$git_port"
}

deploy() {
	host_sample
	# The Git host alone is on this machine.
	nft insert rule inet better_paas from_apps ip daddr 127.0.0.1 tcp dport "$git_port" accept
	api deploy -d "{\"gitRepo\":\"http://127.0.0.1:$git_port/cgi-bin/git/sample.git\"}"
	echo
	until_true 120 visit
	api system
	echo
	ps -eo user,args | grep '[m]ain.py' || fail "no app runs"
}

# A client asks all the time while the service starts again: no connection is refused.
restarts() {
	python3 - "$url" <<-'END'
		import subprocess, sys, threading, time, urllib.request
		failed, made, over = [], 0, False
		def ask():
		    global made
		    while not over:
		        try: urllib.request.urlopen(sys.argv[1] + '/healthz', timeout=20).read(); made += 1
		        except Exception as error: failed.append(error)
		threads = [threading.Thread(target=ask) for _ in range(2)]
		for thread in threads: thread.start()
		for _ in range(10):
		    subprocess.run(['systemctl', 'restart', 'better-paas'], check=True)
		    time.sleep(0.5)
		urllib.request.urlopen(sys.argv[1] + '/healthz', timeout=20).read()
		over = True
		for thread in threads: thread.join()
		print(f'{made} requests over 10 restarts, {len(failed)} failed', failed[:3])
		sys.exit(bool(failed))
	END
	local before
	before=$(port_of_dashboard)
	systemctl kill --kill-whom=main --signal=KILL better-paas && sleep 0.2
	[ "$before" = "$(port_of_dashboard)" ] || fail "the port is free when the server crashes"
	until_true 20 alive
	visit || fail "the app does not run any more"
}
port_of_dashboard() { awk '$2 ~ /:1F90$/ && $4 == "0A" { print $10 }' /proc/net/tcp /proc/net/tcp6; }

# The server's user tries to change what root reads and runs.
attack() {
	local file
	for file in "${own[@]}"; do
		while [ "$file" != / ]; do
			! setpriv --reuid=paas --regid=paas --init-groups test -w "$file" -a ! -L "$file" || fail "paas can write $file"
			file=$(dirname "$file")
		done
	done
	setpriv --reuid=paas --regid=paas --init-groups bash -c \
		'cd /opt/better-paas; echo evil >data/evil; mv data/evil firewall; mv . ../x; ln -sf /tmp/x server; rm conf' 2>&1 | sed 's/^/  /' || true
	better-paas install | grep 'nothing to do' >/dev/null || fail "paas has changed something"
}

refused() { journalctl -u better-paas --no-pager | grep 'sudo better-paas install' >/dev/null; }
settings() {
	printf 'LISTEN_ADDR=127.0.0.1:9090\nDOMIAN_X=1\nBASE_DOMIAN=x\n' >>/etc/better-paas.conf
	systemctl restart better-paas || true
	until_true 20 refused
	better-paas install
	better-paas config | grep -E 'LISTEN_ADDR +127.0.0.1:9090 +/etc/better-paas.conf'
	better-paas config | grep 'is it BASE_DOMAIN' || fail "a misspelt name is no matter"
	[ "$(curl -s -m 5 http://127.0.0.1:9090/healthz)" = ok ] || fail "it does not listen at the new address"
	! alive || fail "it listens at the old address"
	sed -i '/^[A-Z]/d' /etc/better-paas.conf
	# The key, out of the data and back.
	(umask 077 && cat /opt/better-paas/data/secret.key >/etc/better-paas.key)
	better-paas install
	mv /opt/better-paas/data/secret.key kept
	systemctl restart better-paas
	alive || fail "it does not answer"
	[ ! -e /opt/better-paas/data/secret.key ] || fail "another key was made"
	mv kept /opt/better-paas/data/secret.key && rm /etc/better-paas.key
	better-paas install
	alive || fail "it does not answer"
}

stopping() {
	systemctl stop better-paas.socket
	! alive || fail "a stopped server starts again"
	visit || fail "the app has ended with the server"
	systemctl start better-paas
	alive
}

rebooted() {
	until_true 60 alive
	until_true 60 visit
	better-paas install | grep 'nothing to do' >/dev/null || fail "a reboot changes something"
}

nobody_is_left() {
	! ps -eo user:20,args | grep -E '^(paas|[0-9]{6})' && ! pgrep -f main.py
}

removed() {
	cp -a /opt/better-paas/data/secret.key key
	better-paas uninstall
	nobody_is_left || fail "something runs"
	find / -xdev \( -name '*better-paas*' -o -path '/opt/better-paas/*' -prune \) -print | tee left
	! nft list table inet better_paas 2>/dev/null || fail "the firewall is left"
	# And back, with the same data.
	./server install >/dev/null
	cmp key /opt/better-paas/data/secret.key
	until_true 60 visit
	! ./server uninstall --purge </dev/null || fail "it does not ask"
	alive || fail "it did something before it asked"
	./server uninstall --purge --yes
	nobody_is_left || fail "something runs"
	[ ! -e /opt/better-paas ] && [ ! -e /etc/better-paas.conf ] && ! id paas 2>/dev/null || fail "something is left"
}
