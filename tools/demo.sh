#!/bin/sh
# Runs nginx with nginx-conf/demo.conf, in build/demo, until Ctrl-C.
set -eu
cd "$(dirname "$0")/.."
tools/prerequisites.sh demo
conf=$PWD/nginx-conf/demo.conf
prefix=$PWD/build/demo
address=127.0.0.1:8080

if [ ! -f "$conf" ]; then
    echo "demo: nginx-conf/demo.conf is missing" >&2
    exit 1
fi

# fetch PORT: curl's exit status; 0 is a reply, of whatever status, and 7 a refused connection
fetch() {
    curl --silent --noproxy '*' --output /dev/null --max-time 2 "http://127.0.0.1:$1/"
}

# nginx itself would try for seconds, and say it five times
ports=$(grep -o '^[^#]*' "$conf" | grep -o 'listen  *[^; ]*' | grep -o '[0-9]*$')
for port in $ports; do
    code=0
    fetch "$port" || code=$?
    if [ $code != 7 ]; then
        echo "demo: port $port is in use by another program; the demo needs it" >&2
        exit 1
    fi
done

rm -rf "$prefix"
mkdir -p "$prefix/logs" "$prefix/modules"
install build/nginx-1.28/ngx_http_upstream_control_module.so "$prefix/modules/"

nginx=''
# shellcheck disable=SC2317 # called by the trap
stop() {
    trap '' INT TERM HUP
    if [ -z "$nginx" ]; then exit 0; fi
    kill "$nginx" 2>/dev/null || true
    wait "$nginx" 2>/dev/null || true
    echo "demo: nginx has stopped"
    exit 0
}
trap stop INT TERM HUP
build/nginx-1.28/nginx -p "$prefix/" -c "$conf" -g 'daemon off;' &
nginx=$!

until fetch 8080; do
    if ! kill -0 "$nginx" 2>/dev/null; then
        echo "demo: nginx did not start, see above" >&2
        exit 1
    fi
    sleep 0.1
done

cat <<END

  site      http://$address/      one of three servers, and a backup
  api       http://$address/api/  one server that is quick, one slow, one failing
  status    http://$address/upstreamstatus      a page with buttons, in a browser; add ?format=text for curl
  control   http://$address/upstreamcontrol
  log       build/demo/logs/error.log

Try in another terminal:

  curl -s 'http://$address/?[1-6]'
  curl 'http://$address/upstreamcontrol?upstream=backend&server=127.0.0.1:8081&down=&note=upgrade'
  curl 'http://$address/upstreamcontrol?upstream=backend&server=127.0.0.1:8081&up='
  curl 'http://$address/upstreamcontrol?upstream=backend&add=&server=127.0.0.1:8091&weight=3'
  curl 'http://$address/upstreamcontrol?upstream=backend&remove=&server=127.0.0.1:8091'

The first one shows who answers six requests: repeat it after each of the others. Ctrl-C ends the demo.
END

# A signal ends `wait`, and runs the trap. nginx ends with 0 when somebody else told it to.
if wait "$nginx"; then
    echo "demo: nginx has stopped"
    exit 0
fi
echo "demo: nginx has exited by itself: see build/demo/logs" >&2
exit 1
