#!/usr/bin/env perl

# Tests for an address that a name resolves to, leaves, and resolves to again: it
# is what it was told to be before any request gets there.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;
use Test::Nginx::Names qw/name_server/;

my $t = Test::Nginx->new()->has(qw/module http proxy upstream_zone resolve/)
	->plan(4);

$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    resolver 127.0.0.1:8053 valid=1s ipv6=off;
    resolver_timeout 1s;

    upstream u {
        zone u 128k;
        server app.test:%%PORT_8081%% resolve;
    }

    server {
        listen 127.0.0.1:8080 reuseport;

        %%CONTROL%%

        location / {
            proxy_pass http://u;
        }
    }
}
CONF

# How often the address leaves and returns, and how long each takes.
use constant { TIMES => 6, SECONDS => 1.4 };

$t->backend("127.0.0.$_:8081", body => $_) for 1 .. 2;
$t->write_file('addresses', '127.0.0.1 127.0.0.2');
$t->run_daemon(\&name_server, $t->testdir(), port(8053));
$t->run();
$t->leak_keys('/status', 8080);

ok($t->wait_for(sub { servers() == 2 }, 10, 'both'), 'the name has two addresses');
my ($second) = map { $_->{id} }
	grep { $_->{name} =~ /\.2:/ } @{ get_json('/status')->{upstreams}{u}{peers} };
is(control("/control?upstream=u&id=$second&down=")->status(), 200,
	'one of them is down');

# Nobody but requests looks at the lists meanwhile.
my %by;
for my $time (1 .. TIMES) {
	for my $addresses ('127.0.0.1', '127.0.0.1 127.0.0.2') {
		$t->write_file('addresses', $addresses);
		my $end = now() + SECONDS;
		$by{http_get('/')->body()}++ while now() < $end;
	}
}
is_deeply([ keys %by ], [ 1 ], 'no request gets there while it returns');
is_deeply([ map { $_->{state} } @{ get_json('/status')->{upstreams}{u}{peers} } ],
	[ 'up', 'down' ], 'where it is down');

sub servers () { return scalar @{ get_json('/status')->{upstreams}{u}{peers} } }
