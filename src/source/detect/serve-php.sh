#!/bin/sh
# Serves a directory of PHP: serve-php [DIRECTORY]
set -e
root=$PWD/${1:-.}
fpm=$(command -v php-fpm || ls /usr/sbin/php-fpm* | head -1)
cat >/tmp/fpm.conf <<FPM
[global]
error_log = /dev/stderr
daemonize = no
[app]
listen = /tmp/php.sock
pm = ondemand
pm.max_children = ${WEB_CONCURRENCY:-4}
clear_env = no
catch_workers_output = yes
decorate_workers_output = no
FPM
cat >/tmp/Caddyfile <<CADDY
{
	admin off
	auto_https off
}
http://:$PORT {
	bind 127.0.0.1
	root * $root
	php_fastcgi unix//tmp/php.sock {
		trusted_proxies 127.0.0.1/32
	}
	file_server {
		hide .*
	}
}
CADDY
"$fpm" -y /tmp/fpm.conf &
exec caddy run --config /tmp/Caddyfile --adapter caddyfile
