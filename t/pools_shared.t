#!/usr/bin/env perl

# Tests for a pool of several upstreams: how long each has waited for its
# failback is its own.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/module http proxy upstream_zone/)->plan(15);

$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream one {
        zone one 64k;
        server 127.0.0.1:8081;
    }

    upstream two {
        zone two 64k;
        server 127.0.0.1:8082;
    }

    upstream patient {
        pool one failback=4s;
        pool two;
    }

    # Has nothing else to go to.
    upstream needy {
        pool one failback=4s;
    }

    upstream hasty {
        pool one;
        pool two;
    }

    upstream slow {
        pool one failback=1h;
        pool two;
    }

    server {
        listen 127.0.0.1:8080 reuseport;

        %%CONTROL%%

        %%BY_NAME%%
    }
}
CONF

$t->backend("127.0.0.1:$_") for 8081, 8082;

$t->run();
$t->leak_keys('/status', 8080);

my @names = qw/patient needy hasty slow/;

is(join(' ', map { served($_) } @names), '8081 8081 8081 8081',
	'the first pool serves all');
control('/control?upstream=one&peer=0&down=');
is(join(' ', map { served($_) } @names), '8082 - 8082 8082',
	'until it is down');
is(states($_), $_ eq 'needy' ? 'one unavail' : 'one unavail two active',
	"$_: the status") for @names;

control('/control?upstream=one&peer=0&up=');
my $from = now();
is(served('needy'), '8081', 'up: who has no other goes to it at once');
is(states('needy'), 'one active', 'as the status shows');
is(join(' ', map { served($_) } @names), '8082 8081 8081 8082',
	'and others wait, each for itself');
is(states($_), 'one waiting two active', "$_: the status") for qw/patient slow/;

ok($t->wait_for(sub { served('patient') eq '8081' }, 10, 'failback'),
	'failback');
cmp_ok(now() - $from, '>', 3, 'not before its time');
is(states('patient'), 'one active two standby', 'the status');
is(served('slow'), '8082', 'others wait longer');

# Who answers each of many requests to both workers.
sub served ($name) {
	my $got = burst(uri => "/u/$name", n => 12, concurrency => 4);
	return join(',', sort keys %{ $got->{by_body} }) || '-';
}

sub states ($name) {
	return join ' ', map { "$_->{pool} $_->{state}" }
		@{ get_json("/status?upstream=$name")->{upstreams}{$name}{pools} };
}
