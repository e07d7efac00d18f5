#!/usr/bin/env perl

# Tests for what clients of pools get when it goes wrong: the table of
# docs/pools.md, with nginx's own statuses and with those of lua-resty-upstream.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use IO::Socket::IP;
use Socket qw/SOCK_STREAM/;
use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()
	->has(qw/module http proxy rewrite upstream_zone/)
	->plan(29);

# Two pools for each way to fail, of a host each: its port, or its two ports.
my %WAYS = (
	refused => [ 8081, 8082 ],
	silent => [ 8083, 8084 ],
	bad => [ 8085, 8086 ],
	garbage => [ 8087, 8088 ],
	hanging => [ 8089, 8090 ],
	mixed => [ 8085, 8081 ],
	down => [ '8085 down', '8086 down' ],
);

my $upstreams = join '', map {
	my ($first, $second) = map { s/\A(\d+)/127.0.0.1:$1/r } $WAYS{$_}->@*;
	<<"CONF";
    upstream $_ { pool ${_}_1; pool ${_}_2; }
    upstream ${_}_1 { zone ${_}_1 64k; server $first max_fails=0; }
    upstream ${_}_2 { zone ${_}_2 64k; server $second max_fails=0; }
CONF
} sort keys %WAYS;

$t->write_file_expand('nginx.conf', <<'CONF', UPSTREAMS => $upstreams);
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

%%UPSTREAMS%%

    proxy_connect_timeout 500ms;
    proxy_read_timeout 500ms;
    proxy_next_upstream error timeout invalid_header http_503;
    add_header X-None "[$upstream_no_connection]" always;
    add_header X-Addr $upstream_addr always;

    server {
        listen 127.0.0.1:8080;

        location /status {
            upstream_status;
        }

        location ~ ^/nginx/(?<name>\w+)$ {
            proxy_pass http://$name;
        }

        location ~ ^/resty/(?<name>\w+)$ {
            proxy_pass http://$name;
            proxy_intercept_errors on;
            error_page 500 502 503 504 = @failed;
        }

        location @failed {
            if ($upstream_no_connection) {
                return 504;
            }
            return 502;
        }
    }
}
CONF

my @silent = map { silent("127.0.0.1:$_") } 8083, 8084;
$t->backend("127.0.0.1:$_", status => 503, body => 'sorry') for 8085, 8086;
$t->backend("127.0.0.1:$_", protocol => 'tcp', body => "HTTP/1.1 200 OK\r\na\0b: c\r\n\r\n")
	for 8087, 8088;
$t->backend("127.0.0.1:$_", hang => 1) for 8089, 8090;

$t->run();
$t->leak_keys('/status', 8080);

# nginx's status, that of the example, the variable, and how many were asked
my %rows = (
	refused => [ 502, 504, '[1]', 2 ],
	silent => [ 504, 504, '[1]', 2 ],
	bad => [ 503, 502, '[0]', 2 ],
	garbage => [ 502, 502, '[0]', 2 ],
	hanging => [ 504, 502, '[0]', 2 ],
	mixed => [ 502, 502, '[0]', 2 ],
	down => [ 502, 504, '[1]', 0 ],
);

for my $name (sort keys %rows) {
	my ($nginx, $resty, $none, $asked) = $rows{$name}->@*;
	my $r = http_get("/nginx/$name");
	is($r->status(), $nginx, "$name: nginx");
	is($r->header('X-None'), $none, "$name: connections");
	is(() = ($r->header('X-Addr') // '') =~ /127\.0\.0\.1:/g, $asked,
		"$name: hosts that were asked");
	is(http_get("/resty/$name")->status(), $resty, "$name: as in the example");
}

is(http_get('/nginx/bad')->body(), 'sorry', 'the last answer is passed on');

@silent = ();

# A port whose queue is full: who connects gets no answer. The sockets that do
# this.
sub silent ($address) {
	my $listener = IO::Socket::IP->new(LocalHost => '127.0.0.1',
		LocalPort => port($address =~ s/.*://r), Listen => 1, Type => SOCK_STREAM)
		or die "$address: $@\n";
	return $listener, map {
		IO::Socket::IP->new(PeerHost => '127.0.0.1', Blocking => 0,
			PeerPort => $listener->sockport(), Type => SOCK_STREAM)
	} 1 .. 4;
}
