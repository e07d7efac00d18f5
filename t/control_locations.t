#!/usr/bin/env perl

# Tests for upstream_control and upstream_status in locations with blocks of
# their own: nginx switches to the settings of an "if" or a "limit_except".

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/module http proxy upstream_zone rewrite access/)->plan(12);

$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream u {
        zone u 64k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
    }

    server {
        listen 127.0.0.1:8081;
        listen 127.0.0.1:8082;
        location / { return 200 $server_port; }
    }

    server {
        listen 127.0.0.1:8080;

        location /upstreamstatus { upstream_status; }
        location /any { upstream_control; }

        location /if {
            upstream_control methods=POST;
            if ($arg_upstream) { set $x 1; }
        }

        location /limited {
            upstream_control;
            limit_except GET { allow 127.0.0.1; deny all; }
        }

        location /closed {
            upstream_control;
            limit_except GET { deny all; }
        }

        location /status_if {
            upstream_status;
            if ($arg_upstream) { set $x 1; }
        }

        location /outer {
            upstream_control methods=POST;
            location /outer/inner { upstream_control; }
            location /outer/other { return 204; }
        }
    }
}
CONF

$t->run();
$t->leak_keys('/upstreamstatus', port(8080));

my $change = 'upstream=u&peer=0&weight=2';

is(http_get("/if?$change")->status(), 405, 'GET is refused in a taken if, too');
is(http_post("/if?$change", '')->status(), 200, 'POST is not');
is(http_get("/limited?upstream=u")->status(), 200, 'GET outside limit_except');
is(http_post("/limited?$change", '')->status(), 200, 'POST inside limit_except');
is(http_post("/closed?$change", '')->status(), 403, 'POST that limit_except refuses');
is(http_get("/status_if?upstream=u")->status(), 200, 'status in a taken if');
is_deeply([ keys get_json('/status_if?upstream=u')->{upstreams}->%* ], ['u'], 'which is whole');
is(http_get("/outer?$change")->status(), 405, 'the outer location');
is(http_get("/outer/inner?$change")->status(), 200, 'the inner one has its own word');
is(http_get('/outer/other')->status(), 204, 'a location inside without a directive');

# Several servers in one request, in another order than the configuration's.
my $servers = join ',', map { '127.0.0.1:' . port($_) } 8082, 8081;
is(http_get("/any?upstream=u&servers=$servers&down=")->status(), 200, 'two servers, in any order');
is_deeply([ map { $_->{state} } get_json('/upstreamstatus')->{upstreams}{u}{peers}->@* ],
	[qw/down down/], 'both are down');
