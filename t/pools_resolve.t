#!/usr/bin/env perl

# Tests for pools whose servers are what a name resolves to: one address alone
# is left alone after failures, as any lone server of a pool, also after nginx
# has found another one.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;
use Test::Nginx::Names qw/name_server/;

my $t = Test::Nginx->new()->has(qw/module http proxy upstream_zone resolve/)
	->plan(9);

$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    resolver 127.0.0.1:8053 valid=1s ipv6=off;
    resolver_timeout 1s;

    upstream named {
        zone named 64k;
        server app.test:%%PORT_8081%% resolve fail_timeout=1h;
    }

    upstream other {
        zone other 64k;
        server 127.0.0.1:8082;
    }

    upstream app {
        pool named;
        pool other;
    }

    server {
        listen 127.0.0.1:8080 reuseport;

        location /status {
            upstream_status;
        }

        location / {
            proxy_pass http://app;
        }
    }
}
CONF

# Nobody is at the first addresses.
$t->backend('127.0.0.3:8081', body => 'named');
$t->backend('127.0.0.1:8082', body => 'other');

$t->write_file('addresses', '127.0.0.1');
$t->run_daemon(\&name_server, $t->testdir(), port(8053));
$t->run();
$t->leak_keys('/status', 8080);

for my $address ('127.0.0.1', '127.0.0.2') {
	$t->write_file('addresses', $address);
	ok($t->wait_for(sub { addresses() eq $address }, 10, $address),
		"the name is $address");
	my $mark = $t->log_mark();
	my $got = burst(uri => '/', n => 12, concurrency => 1);
	is_deeply($got->{by_body}, { other => 12 }, 'the other pool serves');
	is(scalar $t->grep_log(qr/connect\(\) failed/, $mark), 1,
		'the dead address is tried once');
}

$t->write_file('addresses', '127.0.0.3');
ok($t->wait_for(sub { addresses() eq '127.0.0.3' }, 10, 'a live address'),
	'the name is that of a live server');
is_deeply(burst(uri => '/', n => 12, concurrency => 1)->{by_body},
	{ named => 12 }, 'which serves');
is(get_json('/status?upstream=app')->{upstreams}{app}{active}, 'named',
	'and the pool is active');

sub addresses () {
	return join ' ', map { $_->{name} =~ s/:\d+//r }
		@{ get_json('/status?upstream=named')->{upstreams}{named}{peers} };
}
