#!/usr/bin/env perl

# Tests for upstream_guard, which keeps a change from leaving too few servers,
# in every form that changes servers.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/module http proxy upstream_zone/)->plan(72);

my $CONF = <<'CONF';
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    %%HTTP%%

    upstream two {
        zone two 64k;
        %%UPSTREAM%%
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8083;
        server 127.0.0.1:8084 down;
    }

    upstream half {
        zone half 64k;
        upstream_guard min=50%;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8083;
        server 127.0.0.1:8084 backup;
    }

    upstream inherits {
        zone inherits 64k;
        server 127.0.0.1:8081;
    }

    upstream free {
        upstream_guard off;
        zone free 64k;
        server 127.0.0.1:8081;
    }

    upstream high {
        zone high 64k;
        upstream_guard min=9;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082 down;
    }

    server {
        listen 127.0.0.1:8080;

        location /control {
            upstream_control;
        }

        location /conf {
            upstream_conf;
        }

        location /status {
            upstream_status;
        }

        %%BY_NAME%%
    }
}
CONF

my %CONF = (HTTP => 'upstream_guard min=1;', UPSTREAM => 'upstream_guard min=2;');

$t->write_file_expand('nginx.conf', $CONF, %CONF);
$t->backend("127.0.0.1:$_") for 8081 .. 8084;
$t->run();
$t->leak_keys('/status', 8080, pages => { half => 1 });

directive();
numbers();
percent();
inherited();
too_high();
members();

sub act ($name, $args, $where = 'control') {
	my $r = control("/$where?upstream=$name&$args");
	return $r->told() =~ s/\n.*//sr;
}

sub guard ($left, $min) {
	return "409 guard: $left usable server" . ($left == 1 ? '' : 's') . " would be left, at least $min must "
		. 'be, use "force="';
}

sub states ($name) {
	return join ' ', map { $_->{state} } @{
		get_json("/status?upstream=$name")->{upstreams}{$name}{peers} };
}

sub rows ($name, @rows) {
	for my $row (@rows) {
		my ($args, $wanted, $states) = @$row;
		my $got = act($name, $args);
		$wanted eq '200' ? like($got, qr/\A200 /, "$name: $args")
			: is($got, $wanted, "$name: $args");
		is(states($name), $states, "$name: $args: states");
	}
}

sub directive {
	my @rows = (
		[ 'upstream_guard min=1;', 0, '' ],
		[ 'upstream_guard min=100%;', 0, '' ],
		[ 'upstream_guard off;', 0, '' ],
		[ 'upstream_guard min=0;', 1, 'invalid value "min=0"' ],
		[ 'upstream_guard min=101%;', 1, 'invalid value "min=101%"' ],
		[ 'upstream_guard min=-1;', 1, 'invalid value "min=-1"' ],
		[ 'upstream_guard min=;', 1, 'invalid value "min="' ],
		[ 'upstream_guard 2;', 1, 'invalid value "2"' ],
		[ 'upstream_guard on;', 1, 'invalid value "on", it must be "min=N", "min=N%" or "off"' ],
		[ 'upstream_guard;', 1, 'invalid number of arguments' ],
		[ 'upstream_guard min=1 min=2;', 1, 'invalid number of arguments' ],
		[ 'upstream_guard min=1; upstream_guard off;', 1, 'is duplicate' ],
	);

	for my $row (@rows) {
		my ($text, $wanted, $error) = @$row;
		my ($code, $out) = $t->test_config($CONF, %CONF, UPSTREAM => $text);
		like("$code $out", qr/\A$wanted .*\Q$error\E/s, $text);
	}
}

# What is down counts for nothing, what is up and does not change any more.
sub numbers {
	my $before = 'up up up down';

	rows(two =>
		[ 'servers=127.0.0.1:8081,127.0.0.1:8082&down=', guard(1, 2), $before ],
		[ 'servers=127.0.0.1:8081,127.0.0.1:8082,127.0.0.1:8083&drain=',
			guard(0, 2), $before ],
		[ 'peer=0&down=', '200', 'down up up down' ],
		[ 'peer=1&down=', guard(1, 2), 'down up up down' ],
		[ 'peer=1&drain=', guard(1, 2), 'down up up down' ],
		[ 'id=1&down=', guard(1, 2), 'down up up down' ],
		[ 'peer=0&drain=', '200', 'draining up up down' ],
		[ 'peer=1&weight=3&max_conns=2', '200', 'draining up up down' ],
		[ 'peer=1&weight=4&down=', guard(1, 2), 'draining up up down' ],
		[ 'peer=1&down=&force=', '200', 'draining down up down' ],
		# There are too few already: this one is as good as before.
		[ 'peer=1&drain=', '200', 'draining draining up down' ],
		[ 'peer=3&up=', '200', 'draining draining up up' ],
		[ 'servers=127.0.0.1:8081,127.0.0.1:8082&up=', '200', 'up up up up' ],
		[ 'peer=3&down=', '200', $before ],
	);

	is(act('two', 'id=1&weight=1&max_conns=0'), '200 server 127.0.0.1:8082; # id=1',
		'two: as before');

	my $r = control('/control?stream=two&peer=0&down=1');
	is($r->status(), 200, 'EBLB: down');
	$r = control('/control?stream=two&peer=1&down=1');
	is($r->status() . ' ' . $r->body(), '409 down nil guard: 1 usable server '
		. qq(would be left, at least 2 must be, use "force="\n), 'EBLB: guard');
	is(control('/control?stream=two&peer=1&down=1&force=')->body(),
		"down true nil\n", 'EBLB: force');
	control("/control?stream=two&peer=$_&down=0") for 0, 1;

	is(act('two', 'id=0&down=', 'conf'), '200 server 127.0.0.1:8081 down; # id=0',
		'upstream_conf: down');
	is(act('two', 'id=1&down=', 'conf'), guard(1, 2), 'upstream_conf: guard');
	is_deeply(control('/control?upstream=two&id=1&down=&format=json')->json()
		->{error}{code}, 'Guarded', 'JSON');
	act('two', 'id=0&up=');
}

# Of all servers, backups too.
sub percent {
	rows(half =>
		[ 'servers=127.0.0.1:8081,127.0.0.1:8082,127.0.0.1:8083&down=',
			guard(1, 2), 'up up up up' ],
		[ 'servers=127.0.0.1:8081,127.0.0.1:8082&down=', '200',
			'down down up up' ],
		[ 'server=127.0.0.1:8084&down=', guard(1, 2), 'down down up up' ],
		[ 'servers=127.0.0.1:8081,127.0.0.1:8082&up=', '200', 'up up up up' ],
	);
}

sub inherited {
	is(act('inherits', 'peer=0&down='), guard(0, 1), 'what http says');
	like(act('free', 'peer=0&down='), qr/\A200 /, 'unless the upstream says off');
	is(http_get('/u/free')->status(), 502, 'nobody is left');
	act('free', 'peer=0&up=');
}

# Nothing that makes it no worse is refused.
sub too_high {
	is(act('high', 'peer=0&down='), guard(0, 9), 'more than there are');
	like(act('high', "peer=1&$_"), qr/\A200 /, "more than there are: $_")
		for 'up=', 'weight=2';
	is(act('high', 'peer=1&down='), guard(1, 9), 'more than there are: again');
}

sub members {
	like(act('two', 'remove=&id=0'), qr/\A200 /, 'removed');
	is(act('two', 'remove=&id=1'), guard(1, 2), 'no other one');
	is(act('two', 'remove=&id=1', 'conf'), guard(1, 2), 'nor by upstream_conf');
	like(act('two', 'remove=&id=3'), qr/\A200 /, 'one that is down');
	like(act('two', 'id=1&server=127.0.0.1:8084'), qr/\A200 /, 'one moves');
	is(act('two', 'id=1&server=127.0.0.1:8082&down='), guard(1, 2),
		'but not down');
	like(act('two', 'add=&down=&server=127.0.0.1:8081'), qr/\A200 /,
		'one more that is down');
	is(act('two', 'remove=&id=1'), guard(1, 2), 'does not count');
	like(act('two', 'remove=&id=1&force='), qr/\A200 /, 'unless forced');
	is(states('two'), 'up down', 'who is left');
}
