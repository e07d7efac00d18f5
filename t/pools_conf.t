#!/usr/bin/env perl

# Tests for configurations with "pool": what is taken, and what is refused in
# words that say where.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/
	module http proxy upstream_zone upstream_keepalive upstream_least_conn
/);

my $CONF = <<'CONF';
%%TEST_GLOBALS%%
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream a {
        zone a 64k;
        server 127.0.0.1:8081;
    }

    upstream b {
        zone b 64k;
        server 127.0.0.1:8082;
    }

    upstream no_zone {
        server 127.0.0.1:8083;
    }

    upstream fixed {
        zone fixed 64k;
        upstream_dynamic off;
        server 127.0.0.1:8083;
    }

    %%UPSTREAMS%%

    server {
        listen 127.0.0.1:8080;

        location / {
            proxy_pass http://app;
        }
    }
}
CONF

# What "upstream app" holds, or whole blocks, and the error.
my @bad = (
	[ 'pool;', 'invalid number of arguments in "pool" directive' ],
	[ 'pool a priority=1 failback=1s x;', 'invalid number of arguments in "pool" directive' ],
	[ 'pool "";', 'empty name of a pool' ],
	[ 'pool a weight=2;', 'invalid parameter "weight=2"' ],
	[ 'pool a priority=;', 'invalid parameter "priority="' ],
	[ 'pool a priority=-1;', 'invalid parameter "priority=-1"' ],
	[ 'pool a priority=1.5;', 'invalid parameter "priority=1.5"' ],
	[ 'pool a priority=99999999999;', 'invalid parameter "priority=99999999999"' ],
	[ 'pool a failback=;', 'invalid parameter "failback="' ],
	[ 'pool a failback=soon;', 'invalid parameter "failback=soon"' ],
	[ 'pool a failback=-1s;', 'invalid parameter "failback=-1s"' ],
	[ 'pool a; pool b; pool A;', 'duplicate pool "A"' ],
	[ 'pool a; server 127.0.0.1:8084;', '"server" is not allowed in upstream "app", which has pools' ],
	[ 'server 127.0.0.1:8084; pool a;', '"server" is not allowed in upstream "app", which has pools' ],
	[ 'pool a; zone app 64k;', '"zone" is not allowed in upstream "app", which has pools' ],
	[ 'pool a; upstream_auto_zone 64k;', '"zone" is not allowed in upstream "app", which has pools' ],
	[ 'pool a; least_conn;', 'a load balancing method, "keepalive" or "sticky" is not allowed in upstream "app"' ],
	[ 'pool a; upstream_guard min=1;', '"upstream_guard" is not allowed in upstream "app"' ],
	[ 'upstream_capacity 9; pool a;', '"upstream_capacity" is not allowed in upstream "app"' ],
	[ 'pool a; upstream_dynamic on;', '"upstream_dynamic" is not allowed in upstream "app"' ],
	[ 'pool app;', 'upstream "app" is a pool of itself' ],
	[ 'pool App;', 'upstream "app" is a pool of itself' ],
	[ 'pool a; pool nope;', 'pool "nope" not found in upstream "app"' ],
	[ 'pool no_zone;', 'pool "no_zone" of upstream "app" is static: upstream has no "zone"' ],
	[ 'pool fixed;', 'pool "fixed" of upstream "app" is static: "upstream_dynamic off" is set' ],
	[ join(' ', map { "pool a$_;" } 1 .. 65), 'upstream "app" has more than 64 pools' ],
	[ \'upstream app { pool c; } upstream c { pool app; }', 'upstreams "app" and "c" are pools of each other' ],
	[ \'upstream app { pool c; } upstream c { pool d; } upstream d { pool app; }', 'upstreams "app" and "c" are pools of each other' ],
	[ \'upstream app { pool c; } upstream c { pool a; }', 'pool "c" of upstream "app" has pools itself' ],
	# The circle is elsewhere.
	[ \'upstream app { pool c; } upstream c { pool d; } upstream d { pool c; }', 'pool "c" of upstream "app" has pools itself' ],
);

# Newer nginx has keepalive everywhere, and it does nothing here.
push @bad, [ 'keepalive 4; pool a;', 'a load balancing method, "keepalive" or' ]
	unless $t->has_version('1.29.7');

my @good = (
	'pool a;',
	'pool a priority=0 failback=0;',
	'pool b failback=1m30s priority=4294967295; pool A;',
);

$t->plan(@bad + @good + 2);

sub text ($what) { return ref $what ? $$what : "upstream app {\n$what\n}\n" }

for my $row (@bad) {
	my ($what, $error) = @$row;
	my ($code, $out) = $t->test_config($CONF, UPSTREAMS => text($what));
	like("$code $out", qr/\A1 .*\[emerg\].*\Q$error\E.* in \S+\.conf\S*:\d+\n/s, text($what));
}

for my $what (@good) {
	my ($code, $out) = $t->test_config($CONF, UPSTREAMS => text($what));
	unlike("$code $out", qr/\A1 |\[\w+\]/, $what);
}

# Errors that are found at the end name the block.
my ($code, $out) = $t->test_config($CONF, UPSTREAMS => text('pool nope;'));
my ($file, $line) = $out =~ m{ in \S+/(\S+):(\d+)$}m;
like((split /\n/, $t->read_file($file))[$line - 1], qr/upstream app \{/,
	'the line of the block');

# 64 pools, one upstream in two others, and more than one word about each.
my @names = map { "p$_" } 1 .. 64;
my $pools = join "\n", map { "upstream $_ { zone $_ 64k; server 127.0.0.1:8084; }" } @names;
my $app = join ' ', map { "pool $_;" } @names;
($code, $out) = $t->test_config($CONF,
	UPSTREAMS => "$pools\nupstream app { $app }\nupstream more { pool p1; pool a; }\n");
is($code, 0, '64 pools') or diag($out);
