#!/usr/bin/env perl

# Tests for the debug log: for a timer nginx writes the descriptor of the
# connection that it belongs to, and the module's have none.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new(log_level => 'debug')
	->has(qw/module http proxy debug upstream_zone upstream_keepalive/)
	->plan(5);

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
        keepalive 4;
    }

    server {
        listen 127.0.0.1:8080;

        location / {
            proxy_pass http://u;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }

        %%CONTROL%%
    }
}
CONF

$t->backend("127.0.0.1:$_") for 8081, 8082;
$t->run();
$t->leak_keys('/status');

# An idle connection sets the module's timer.
is(burst(n => 8)->{failed}, 0, 'requests');
ok($t->find_in_log(qr/event timer del: -1: /), 'a timer without a descriptor');

# The other events: a change that workers follow, and a list that is read.
is(control('/control?upstream=u&server=127.0.0.1:8081&down=')->status(), 200,
	'a change');
is(control('/control?upstream=u&replace=', method => 'POST',
	body => "server 127.0.0.1:8082;\n")->status(), 200, 'a replacement');
is(burst(n => 8)->{failed}, 0, 'requests after them');
