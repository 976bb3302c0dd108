# What try-install does inside a booted machine; root there sources it and calls one of the functions.
# shellcheck shell=bash
set -euo pipefail
cd /root
url=http://127.0.0.1:8080
git_port=3000
own=(/opt/better-paas /opt/better-paas/server /opt/better-paas/firewall /usr/local/bin/better-paas /etc/better-paas.conf
	/etc/systemd/system/better-paas.socket /etc/systemd/system/better-paas.service)
# What updates leave beside them, and for a moment.
of_updates=(/opt/better-paas/server.before /opt/better-paas/update.json /run/better-paas.lock)

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

# The Git host alone is on this machine.
hole() { nft insert rule inet better_paas from_apps ip daddr 127.0.0.1 tcp dport "$git_port" accept; }
deploy() {
	host_sample
	hole
	api deploy -d "{\"gitRepo\":\"http://127.0.0.1:$git_port/cgi-bin/git/sample.git\"}"
	echo
	until_true 120 visit
	api system
	echo
	ps -eo user,args | grep '[m]ain.py' || fail "no app runs"
}

# finding ID: its level, and the command that it prints.
finding() {
	api security/check | python3 -c 'import json, sys
for found in json.load(sys.stdin)["findings"]:
    if found["id"] == sys.argv[1]: print(found["level"], (found["mend"].split("`") + [""])[1])' "$1"
}
is() { [[ $(finding "$1") == "$2"* ]]; }
# broken ID LEVEL: it is found, and well once what it prints was run.
broken() {
	local command
	until_true 60 is "$1" "$2"
	command=$(finding "$1") && command=${command#* }
	echo "$1 is found; its mend: $command"
	bash -ec "${command//sudo /}" >/dev/null
	until_true 60 alive
	until_true 60 is "$1" pass
}

# A fresh machine has nothing to be mended now. What is broken is found within a minute, and mended by what that prints.
checks() {
	local data=/opt/better-paas/data
	better-paas check || fail "a fresh machine has something to be mended"
	better-paas check --json | python3 -c 'import json, sys; json.load(sys.stdin)["findings"][0]["id"]'
	nft delete table inet better_paas
	broken firewall fail
	broken backup warn
	cp $data/secret.key key.kept
	broken key warn
	[ ! -e $data/secret.key ] && [ -e /etc/better-paas.key ] || fail "the key is where it was"
	install -o paas -g paas -m 600 key.kept $data/secret.key && rm /etc/better-paas.key key.kept
	better-paas install >/dev/null
	# Whether settings are newer than the service is known by the second.
	sleep 2
	printf 'ADMIN_TOKEN=%s\n' "$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')" >>/etc/better-paas.conf
	better-paas install >/dev/null
	until_true 60 is token warn
	sleep 2
	broken token warn
	touch /run/reboot-required
	until_true 60 is reboot warn
	rm /run/reboot-required
	database "UPDATE audit SET act = act || ' ' WHERE seq = (SELECT max(seq) FROM audit)"
	broken audit fail
	systemctl stop better-paas.socket better-paas.service
	better-paas check | grep 'no server runs' >/dev/null || fail "without a server the checklist says nothing"
	systemctl start better-paas.socket better-paas.service
	until_true 60 alive
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
	for file in "${own[@]}" "${of_updates[@]}"; do
		[ -e "$file" ] || continue
		while [ "$file" != / ]; do
			! setpriv --reuid=paas --regid=paas --init-groups test -w "$file" -a ! -L "$file" || fail "paas can write $file"
			file=$(dirname "$file")
		done
	done
	setpriv --reuid=paas --regid=paas --init-groups bash -c \
		'cd /opt/better-paas; echo evil >data/evil; mv data/evil firewall; mv . ../x; ln -sf /tmp/x server; rm conf' 2>&1 | sed 's/^/  /' || true
	better-paas install | grep 'nothing to do' >/dev/null || fail "paas has changed something"
	as_paas bash -c 'for name in server.new server.old server.sig update.json; do echo evil >/opt/better-paas/$name && exit; done
		: 9>/run/better-paas.lock && flock -n 9' 2>/dev/null && fail "paas can write what an update uses"
	# A way out of the data is no way for root.
	as_paas bash -c 'cd /opt/better-paas/data; [ ! -e before-update ] || mv before-update kept; ln -s /etc before-update'
	make_newer
	! better-paas update newer 2>said || fail "an update follows a link of paas's"
	grep 'could not be made' said || fail "it was refused for another reason"
	[ -z "$(find /etc -newer newer -name newest -o -newer newer -name 'better-paas.db*')" ] || fail "paas has root write to /etc"
	as_paas bash -c 'cd /opt/better-paas/data; rm before-update; [ ! -e kept ] || mv kept before-update'
}

as_paas() { setpriv --reuid=paas --regid=paas --init-groups "$@"; }

# A program that differs from this one in its version alone: newer; and one that lies about it: lying.
make_newer() {
	python3 - <<-'END'
		import re
		program = open('server', 'rb').read()
		# In its texts, and where the compiler has put a text among its instructions.
		lying = re.sub(rb'(?s)(server 0.{0,12}?\.1\.)0', rb'\g<1>1', program)
		open('lying', 'wb').write(lying)
		open('newer', 'wb').write(lying.replace(b'0.1.0', b'0.1.1'))
	END
	chmod 755 newer lying
	[ "$(./newer version)" = 'server 0.1.1' ] || fail "no newer version was made"
	local name
	for name in newer lying; do sha256sum "$name" >"$name.sha256"; done
}

# odd UNITS SERVE: a program that says that it is version 0.1.2 and proves it; for its units it does the one, to serve the other.
odd() {
	cat >odd <<-END
		#!/bin/bash
		case "\${1:-}" in
		version) echo server 0.1.2 ;;
		prove) echo ok 0.1.2 ;;
		update-units) $1 ;;
		*) $2 ;;
		esac
	END
	chmod 755 odd && sha256sum odd >odd.sha256
}

served() { as_paas curl -s -m 5 --unix-socket /opt/better-paas/data/gate.sock http://localhost/healthz; }
serves() { [ "$(served)" = "ok $1" ] && alive && visit || fail "version $1 does not serve, or an app: $(served)"; }
last_update() { api system | python3 -c 'import json, sys; last = json.load(sys.stdin)["lastUpdate"]; print(last["version"], last["result"])'; }
database() { python3 -c "import sqlite3, sys; d = sqlite3.connect('/opt/better-paas/data/better-paas.db'); d.execute(sys.argv[1]); d.commit()" "$1"; }
back_to_first() { better-paas update server --sha256 "$(sha256sum server | cut -d ' ' -f 1)" --downgrade >/dev/null; }

# Clients of an app and of the dashboard ask all the time while FUNCTION runs: no request fails, whatever becomes of an update.
meanwhile() {
	rm -f over
	python3 - "$url" <<-'END' &
		import os, sys, threading, time, urllib.request
		failed, made, slowest = [], [0, 0], [0.0, 0.0]
		asked = [('http://127.0.0.1/', 'sample.localhost'), (sys.argv[1] + '/healthz', 'localhost')]
		def ask(which):
		    address, host = asked[which]
		    while not os.path.exists('over'):
		        began = time.time()
		        try: urllib.request.urlopen(urllib.request.Request(address, headers={'Host': host}), timeout=90).read()
		        except Exception as error: failed.append((address, error))
		        made[which] += 1
		        slowest[which] = max(slowest[which], time.time() - began)
		        time.sleep(0.002)
		threads = [threading.Thread(target=ask, args=[which]) for which in (0, 1)]
		for thread in threads: thread.start()
		for thread in threads: thread.join()
		print(f'visitor: {made[0]}, slowest {slowest[0]:.1f} s; dashboard: {made[1]}, slowest {slowest[1]:.1f} s; {len(failed)} failed', failed[:3])
		sys.exit(bool(failed))
	END
	local clients=$!
	"$1"
	touch over
	wait "$clients" || fail "requests failed"
}

updates() {
	make_newer
	meanwhile forward
	meanwhile backward
}

forward() {
	local began=$EPOCHREALTIME
	better-paas update newer
	awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { printf "an update took %.1f s\n", b - a }'
	serves 0.1.1
	[ "$(last_update)" = "0.1.1 updated" ] || fail "another update is told: $(last_update)"
	better-paas update newer | grep 'nothing to do' >/dev/null || fail "twice does something"
	! ./server install || fail "an older one comes by install"
	serves 0.1.1
	back_to_first
	serves 0.1.0
	./newer install
	serves 0.1.1
	back_to_first
}

# not_taken PROGRAM WORDS [VERSION RESULT]: it ends with that and the program of before serves.
not_taken() {
	! better-paas update "$1" >out 2>&1 || fail "$1 was taken"
	cat out
	grep "$2" out >/dev/null || fail "$1 was refused for another reason"
	[ ! -e /opt/better-paas/server.old ] || fail "the update is not over"
	serves 0.1.0
}

backward() {
	printf '#!/bin/sh\nexit 1\n' >dead && chmod 755 dead && sha256sum dead >dead.sha256
	not_taken dead 'does not run'
	not_taken lying 'fails its proof: it serves as .*0.1.0'
	printf x >>newer
	not_taken newer 'not the program that is meant'
	make_newer
	# A migration that fails: what it would make is there already.
	local version
	version=$(python3 -c 'import sqlite3
print(*sqlite3.connect("/opt/better-paas/data/better-paas.db").execute("PRAGMA user_version").fetchone())')
	database "PRAGMA user_version = $((version - 1))"
	not_taken newer 'already exists\|duplicate column'
	database "PRAGMA user_version = $version"
	odd : 'echo It does not serve. >&2; exit 1'
	not_taken odd 'rolled back: .*It does not serve'
	odd : 'exec /opt/better-paas/server.old'
	not_taken odd 'rolled back: it serves as .*0.1.0'
	[ "$(last_update)" = "0.1.2 rolled back" ] || fail "another update is told: $(last_update)"
	# One that changes the schema, and then does not serve.
	database 'CREATE TABLE mine (a)'
	odd "python3 -c 'import sqlite3; d = sqlite3.connect(\"/opt/better-paas/data/better-paas.db\"); d.execute(\"PRAGMA user_version = 99\"); d.execute(\"DROP TABLE mine\")'" 'exit 1'
	not_taken odd 'rolled back'
	database 'INSERT INTO mine VALUES (1)'
	database 'DROP TABLE mine'
}

# Killed at each step, forward and on the way back: the old or the new one serves, and the next run ends it.
killed() {
	odd : 'exec /opt/better-paas/server.old "$@"'
	meanwhile killed_at_each_step
}
killed_at_each_step() {
	local program step lines
	for program in newer odd; do
		for step in $(seq 0 12); do
			: >steps
			better-paas update "$program" >steps 2>&1 &
			until [ "$(wc -l <steps)" -ge "$step" ] || ! kill -0 $! 2>/dev/null; do sleep 0.01; done
			lines=$(wc -l <steps)
			kill -KILL $! 2>/dev/null || true
			wait $! 2>/dev/null || true
			[ "$lines" -ge "$step" ] || break
			until_true 20 alive
			visit || fail "the app does not answer"
			echo "$program, killed after: $(tail -n 1 steps); serves: $(served)"
			better-paas install >steps 2>&1 || true
			echo "  then: $(grep -E '^(updated|rolled|server: rolled|everything)' steps | head -n 1)"
			[ ! -e /opt/better-paas/server.old ] || fail "it is not over: $(cat steps)"
			[ "$(served)" = 'ok 0.1.1' ] || serves 0.1.0
			[ "$(served)" = 'ok 0.1.0' ] || back_to_first
		done
		[ "$(served)" = 'ok 0.1.0' ] || back_to_first
	done
	serves 0.1.0
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

# Backups as the manual makes them, and what comes back of them.
restores() {
	local data=/opt/better-paas/data
	better-paas backup
	[ "$(stat -c %U:%a "$data"/backups/*.tgz | sort -u)" = paas:600 ] || fail "a backup is not paas's alone"
	better-paas backup /root/today.tgz
	[ "$(stat -c %U:%a today.tgz)" = root:600 ] || fail "others can read a backup"
	better-paas backup - | tar -xzO HEADER
	cp -a "$data/secret.key" kept
	! better-paas restore today.tgz || fail "it is restored under a running server"
	systemctl stop better-paas.socket better-paas.service
	! better-paas restore first.log || fail "anything is a backup"
	better-paas restore today.tgz --key-file kept
	systemctl start better-paas.socket better-paas.service
	hole
	alive || fail "it does not answer"
	until_true 120 visit
	cmp kept "$data/secret.key"
	[ "$(stat -c %U:%a "$data/better-paas.db" "$data/secret.key" | sort -u)" = paas:600 ] || fail "root's among the data"
	[ -e "$data"/before-restore-*/better-paas.db ] || fail "nothing is kept"
	rm -rf kept "$data"/before-restore-*
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
