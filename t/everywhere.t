#!/usr/bin/env perl

# Tests for upstream=*, by which a host is taken out of all upstreams, and comes
# back.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()
	->has(qw/module http proxy upstream_zone upstream_least_conn unix ipv6/)
	->plan(57);

$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 3;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream a {
        zone a 64k;
        server 127.0.0.1:8081;
        server 127.0.0.2:8081;
    }

    upstream b {
        zone b 64k;
        least_conn;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.2:8082;
        server 127.0.0.1:8083 backup;
    }

    upstream other {
        zone other 64k;
        server 127.0.0.3:8081;
        server [::1]:8084;
        server unix:%%TESTDIR%%/one.sock;
    }

    upstream guarded {
        zone guarded 64k;
        upstream_guard min=2;
        server 127.0.0.4:8081;
        server 127.0.0.5:8081;
    }

    upstream free {
        zone free 64k;
        server 127.0.0.4:8081;
        server 127.0.0.5:8081;
    }

    upstream plain {
        server 127.0.0.1:8081;
    }

    upstream off {
        zone off 64k;
        upstream_dynamic off;
        server 127.0.0.1:8081;
    }

    server {
        # Gives each worker its share of the connections.
        listen 127.0.0.1:8080 reuseport;

        location /control {
            upstream_control;
        }

        location /post {
            upstream_control methods=POST;
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

my %hosts = ('127.0.0.1' => [ 8081 .. 8083 ], '127.0.0.2' => [ 8081, 8082 ]);

for my $host (sort keys %hosts) {
	$t->backend("$host:$_", body => "$host:$_") for @{ $hosts{$host} };
}

$t->run();
$t->leak_keys('/status', 8080);

hosts();
effect();
refused();
guarded();
json();
noted();

sub act ($args, $where = 'control') {
	my $r = control("/$where?upstream=*&" . $t->expand($args));
	return $r->told();
}

# "name: states", for upstreams with a server that is not up.
sub states () {
	my $all = get_json('/status')->{upstreams};
	my @found;

	for my $name (sort keys %$all) {
		my @states = map { $_->{state} } @{ $all->{$name}{peers} };
		push @found, "$name: @states" if grep { $_ ne 'up' } @states;
	}

	return join ', ', @found;
}

sub hosts {
	my $unix = 'unix:%%TESTDIR%%/one.sock';
	my @rows = (
		# arguments, reply, who is not up then
		[ 'server=127.0.0.1&down=',
			"a: 1 server changed\nb: 3 servers changed\n",
			'a: down up, b: down down up down' ],
		[ 'server=127.0.0.1&down=',
			"a: 1 server unchanged\nb: 3 servers unchanged\n",
			'a: down up, b: down down up down' ],
		[ 'server=127.0.0.1:8081&drain=',
			"a: 1 server changed\nb: 1 server changed\n",
			'a: draining up, b: draining down up down' ],
		[ 'server=127.0.0.1:8083&up=', "b: 1 server changed\n",
			'a: draining up, b: draining down up up' ],
		[ 'server=127.0.0.1&up=',
			"a: 1 server changed\nb: 2 servers changed\n", '' ],
		[ 'server=[::1]&down=', "other: 1 server changed\n",
			'other: up down up' ],
		[ 'server=[0:0::1]:%%PORT_8084%%&up=', "other: 1 server changed\n", '' ],
		[ "server=$unix&drain=", "other: 1 server changed\n",
			'other: up up draining' ],
		[ "server=$unix&up=", "other: 1 server changed\n", '' ],
	);

	for my $row (@rows) {
		my ($args, $body, $states) = @$row;
		is(act($args), "200 $body", $args);
		is(states(), $states, "$args: states");
	}
}

sub answers ($name) {
	my $got = burst(uri => "/u/$name", n => 30, concurrency => 6);
	return join ' ', sort keys %{ $got->{by_body} };
}

# In every worker, when the reply is here; what is static goes its own way.
sub effect {
	is(answers('a'), '127.0.0.1:8081 127.0.0.2:8081', 'a before');
	act('server=127.0.0.1&down=');
	is(answers('a'), '127.0.0.2:8081', 'a');
	is(answers('b'), '127.0.0.2:8082', 'b');
	is(answers('plain'), '127.0.0.1:8081', 'no zone');
	is(answers('off'), '127.0.0.1:8081', 'upstream_dynamic off');
	act('server=127.0.0.2&down=');
	is(answers('a'), '', 'nobody is left');
	act("server=$_&up=") for '127.0.0.1', '127.0.0.2';
	is(answers('b'), '127.0.0.1:8081 127.0.0.1:8082 127.0.0.2:8082', 'b again');
}

sub refused {
	my $only = '400 upstream=* is only for up, down and drain of a server';
	my $mark = $t->log_mark();
	my @rows = (
		[ 'server=127.0.0.9&down=', '404 no upstream has this server' ],
		[ 'server=127.0.0.1:8089&down=', '404 no upstream has this server' ],
		[ 'server=127.0.0&down=', '404 no upstream has this server' ],
		[ 'server=*&down=', '404 no upstream has this server' ],
		[ 'down=', q(400 'server' argument required) ],
		[ '', $only ], [ 'server=127.0.0.1', $only ],
		[ 'server=127.0.0.1&weight=2', $only ],
		[ 'server=127.0.0.1&down=&weight=2', $only ],
		[ 'add=&server=127.0.0.9', $only ],
		[ 'remove=&server=127.0.0.1', $only ],
		[ 'peer=0&down=', $only ], [ 'id=0&down=', $only ],
		[ 'servers=127.0.0.1&down=', $only ],
		[ 'id=0&server=127.0.0.9', $only ],
		[ 'server=127.0.0.1&down=&up=',
			'400 down and up at once are not allowed' ],
	);

	for my $row (@rows) {
		my ($args, $wanted) = @$row;
		like(act($args), qr/\A\Q$wanted\E(?:: "|\z)/, "\"$args\"");
	}

	is(act('server=127.0.0.1&down=', 'post'), '405 only POST allowed',
		'methods=POST');
	is(act('server=127.0.0.1&down=&id=0', 'conf'), '404 upstream is not found: "*"',
		'upstream_conf has no such name');
	is(control('/control?stream=*&peer=0&down=1')->status(), 404,
		'nor has stream=');
	is(states(), '', 'nothing was changed');
	is(scalar $t->grep_log(qr/\[notice\]/, $mark), 0, 'nor logged');
}

# One that refuses stays whole, the others do as they are told.
sub guarded {
	my $guard = 'guarded: guard: 1 usable server would be left, at least 2 '
		. qq(must be, use "force="\n);

	is(act('server=127.0.0.4&down='), "409 ${guard}free: 1 server changed",
		'a guard');
	is(states(), 'free: down up', 'a guard: states');
	is(act('server=127.0.0.4&down=&force='),
		"200 guarded: 1 server changed\nfree: 1 server unchanged\n", 'forced');
	is(act('server=127.0.0.4&up='),
		"200 guarded: 1 server changed\nfree: 1 server changed\n", 'back');
}

sub json {
	my $r = control('/control?upstream=*&server=127.0.0.4&down=&format=json');
	my $got = $r->json();
	is($r->status(), 409, 'JSON: status');
	is_deeply($got->[0], { upstream => 'guarded', error => {
		status => 409, code => 'Guarded', text => 'guard: 1 usable server would '
			. 'be left, at least 2 must be, use "force="' } }, 'JSON: refused');
	is_deeply([ @{ $got->[1] }{qw/upstream changed/},
		map { @$_{qw/id state/} } @{ $got->[1]{servers} } ],
		[ 'free', 1, 0, 'down' ], 'JSON: done');
	is(@$got, 2, 'JSON: nothing else');

	$r = http_post('/post?upstream=*', 'server=127.0.0.4&up=&format=json',
		headers => { 'Content-Type' => 'application/x-www-form-urlencoded' });
	is_deeply([ $r->status(), map { @$_{qw/upstream changed/} } @{ $r->json() } ],
		[ 200, 'guarded', 0, 'free', 1 ], 'JSON: form');
}

# A line for each server, with the words of the client.
sub noted {
	my $mark = $t->log_mark();
	act('server=127.0.0.1&down=&note=shutdown');
	my @lines = map { $t->logical($_) } $t->grep_log(qr/\[notice\]/, $mark);
	is_deeply([ sort map { /(upstream .*), revision \d+(, note: "[^"]*")/
			? "$1$2" : $_ } @lines ],
		[ map { qq(upstream $_: state up -> down, note: "shutdown") }
			'"a" server "127.0.0.1:8081"', '"b" server "127.0.0.1:8081"',
			'"b" server "127.0.0.1:8082"', '"b" server "127.0.0.1:8083"' ],
		'the log');
	is_deeply([ map { $_->{reason}{note} } grep { $_->{state} eq 'down' }
		@{ get_json('/status?upstream=b')->{upstreams}{b}{peers} } ],
		[ ('shutdown') x 3 ], 'the reasons');
	act('server=127.0.0.1&up=');
}
