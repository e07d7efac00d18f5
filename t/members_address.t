#!/usr/bin/env perl

# Tests for the ids of servers that come and go, and for servers that get
# another address: in the form of EBLB and by id.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/module http proxy upstream_zone unix ipv6/);

$t->plan(51);

$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 4;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    proxy_connect_timeout 2s;

    upstream luaupstfoo {
        zone luaupstfoo 64k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8083 backup;
    }

    upstream ids {
        zone ids 64k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
    }

    upstream down {
        zone down 64k;
        server 127.0.0.1:8081 weight=3 max_fails=5;
        server 127.0.0.1:8082;
    }

    server {
        # Gives each worker its share of the connections.
        listen 127.0.0.1:8080 reuseport;

        location /upstreamcontrol {
            upstream_control;
        }

        location /status {
            upstream_status;
        }

        %%BY_NAME%%
    }
}
CONF

$t->backend($_) for map({ "127.0.0.1:$_" } 8081 .. 8086), '[::1]:8087',
	'unix:%%TESTDIR%%/other.sock';
$t->run();
$t->leak_keys('/status', 8080, pages => { luaupstfoo => 1, ids => 1 });

ids();
eblb();
readdressed();
kept();
log_lines();
json();
refused();

sub act ($args, $name) {
	return control("/upstreamcontrol?upstream=$name&$args");
}

sub upstream ($name) {
	return get_json("/status?upstream=$name")->{upstreams}{$name};
}

# "id:port" of each server.
sub ids_of ($name) {
	return join ' ', map {
		"$_->{id}:" . $t->logical($_->{name}) =~ s{.*[:/]}{}r
	} @{ upstream($name)->{peers} };
}

sub text ($r) { return $r->told() }

# Who answers, in all workers.
sub answers ($name, $n = 48) {
	my $got = burst(uri => "/u/$name", n => $n, concurrency => 12);

	return join ' ', ($got->{failed} ? 'failed' : ()),
		sort keys %{ $got->{by_body} };
}

# An id means one server for ever, wherever it moves.
sub ids {
	is(ids_of('ids'), '0:8081 1:8082', 'ids of the file');
	act('add=&server=127.0.0.1:8083', 'ids');
	act('remove=&server=127.0.0.1:8083', 'ids');
	act('add=&server=127.0.0.1:8083', 'ids');
	is(ids_of('ids'), '0:8081 1:8082 3:8083', 'not used twice');
	act('remove=&id=0', 'ids');
	act('add=&server=127.0.0.1:8081', 'ids');
	is(ids_of('ids'), '1:8082 3:8083 4:8081', 'nor that of the file');
	is(act('id=0&down=', 'ids')->status(), 400, 'the old id is gone');

	is(text(act('id=3&server=127.0.0.1:8086', 'ids')),
		"200 server 127.0.0.1:8086; # id=3\n", 'another address');
	is(ids_of('ids'), '1:8082 3:8086 4:8081', 'id and place stay');
	is(answers('ids'), '8081 8082 8086', 'the new address serves');
}

# The lines of EBLB's example: its index goes on to mean the server that moved.
sub eblb {
	my $port = port(8081);
	my $first = sub {
		return join ' ', @{ upstream('luaupstfoo')->{peers}[0] }{qw/id name state/};
	};
	my @rows = (
		[ 'down=true', "down true nil\n", "0 127.0.0.1:$port down" ],
		[ 'addr=192.168.169.9', "changed true nil\n",
			"0 192.168.169.9:$port down" ],
		[ 'addr=192.168.169.2:85', "changed true nil\n",
			'0 192.168.169.2:85 down' ],
		[ 'addr=192.168.169.3', "changed true nil\n",
			'0 192.168.169.3:85 down' ],
		[ 'addr=127.0.0.1:' . port(8084), "changed true nil\n",
			'0 127.0.0.1:' . port(8084) . ' down' ],
		[ 'down=false', "up true nil\n", '0 127.0.0.1:' . port(8084) . ' up' ],
		[ 'addr=' . port(8084), undef ],
		[ 'addr=', undef ], [ 'addr=app', undef ], [ 'addr=1.2.3.4:0', undef ],
	);

	for my $row (@rows) {
		my ($args, $body, $after) = @$row;
		my $r = http_get("/upstreamcontrol?$args&peer=0&stream=luaupstfoo");
		defined $body ? is(text($r), "200 $body", "EBLB: $args")
			: like(text($r), qr/\A400 changed nil \S.*\z/, "EBLB: $args");
		is($first->(), $after, "EBLB: $args, the server") if $after;
	}

	is(answers('luaupstfoo'), '8082 8084', 'EBLB: the new address serves');
	is(ids_of('luaupstfoo'), '0:8084 1:8082 2:8083', 'EBLB: in its place');
}

# To an address of another kind, as a backup, and to one that is taken.
sub readdressed {
	my $sock = $t->expand('unix:%%TESTDIR%%/other.sock');

	is(act("id=0&server=$sock", 'luaupstfoo')->status(), 200, 'to a socket');
	is(answers('luaupstfoo'), '8082 other.sock', 'which serves');
	is(act('id=0&server=[::1]:8087&weight=3', 'luaupstfoo')->body(),
		"server [::1]:8087 weight=3; # id=0\n", 'to IPv6, with a weight');
	is(answers('luaupstfoo'), '8082 8087', 'which serves');
	is(act('id=2&server=127.0.0.1:8086', 'luaupstfoo')->body(),
		"server 127.0.0.1:8086 backup; # id=2\n", 'a backup moves');
	my $revision = upstream('luaupstfoo')->{revision};
	is(act('id=2&server=127.0.0.1:8086', 'luaupstfoo')->status(), 200,
		'where it is');
	is(upstream('luaupstfoo')->{revision}, $revision, 'is no change');
}

# State, reason and parameters go with the server, its failures do not.
sub kept {
	act('id=0&down=&note=disk', 'down');
	act('id=0&server=127.0.0.1:8084', 'down');
	my $peer = upstream('down')->{peers}[0];
	is_deeply([ @$peer{qw/id state weight max_fails fails/},
		$peer->{reason}{note} ], [ 0, 'down', 3, 5, 0, 'disk' ],
		'what is known of it');
	is(answers('down'), '8082', 'it stays down');
	act('id=0&server=127.0.0.1:8085&up=', 'down');
	is(answers('down'), '8082 8085', 'until it is up');

	# Nobody listens there.
	act('id=1&server=127.0.0.1:8088', 'down');
	$t->wait_for(sub {
		http_get('/u/down');
		return upstream('down')->{peers}[1]{state} eq 'unavail';
	}, 5, 'a failure') and pass('it fails');
	act('id=1&server=127.0.0.1:8082', 'down');
	is(upstream('down')->{peers}[1]{state}, 'up', 'failures are not taken along');
	is(answers('down'), '8082 8085', 'it serves at once');
}

sub log_lines {
	my $revision = upstream('down')->{revision};
	my @rows = (
		[ 'id=1&server=127.0.0.1:8083',
			'address 127.0.0.1:8082 -> 127.0.0.1:8083' ],
		[ 'id=1&server=127.0.0.1:8082&weight=2&drain=&note=a', 'state up -> draining, '
			. 'address 127.0.0.1:8083 -> 127.0.0.1:8082, weight 1 -> 2', ', note: "a"' ],
		[ 'id=1&server=127.0.0.1:8082', undef ],
		[ 'id=1&up=&weight=1', 'state draining -> up, weight 2 -> 1' ],
	);

	for my $row (@rows) {
		my ($args, $what, $note) = (@$row, '');
		my $mark = $t->log_mark();
		act($args, 'down');
		my @lines = map { $t->logical($_) } $t->grep_log(qr/\[notice\]/, $mark);
		$revision++ if $what;
		like("@lines", $what
			? qr/\A[^"]+ upstream "down" server "127.0.0.1:\d+": \Q$what, revision $revision$note, client: 127.0.0.1, server: \E(?!.*revision)/
			: qr/\A\z/, "log: $args");
	}
}

sub json {
	my $got = act('id=1&server=127.0.0.1:8083&format=json', 'down')->json();
	is_deeply([ @{ $got->{server} }{qw/id server name/} ],
		[ 1, ('127.0.0.1:8083') x 2 ], 'JSON');
}

sub refused {
	my $revision = upstream('down')->{revision};
	my @rows = (
		[ 'id=9&server=127.0.0.1:8086', 400, 'server or peer is not found: "9"' ],
		[ 'id=1&server=app', 400, 'host name "app" where an address is needed' ],
		[ 'id=1&server=1.2.3', 400,
			'invalid address "1.2.3": not an ip address' ],
		[ 'id=1&server=unix:', 400,
			'invalid address "unix:": no path in the unix domain socket' ],
		[ 'id=1&server=127.0.0.1:8086&weight=0', 400,
			'invalid weight "0": use drain or down to stop new requests' ],
		[ 'id=1&server=127.0.0.1:8086&backup=', 400,
			'backup: only for a server that is added' ],
		[ 'id=1&server=127.0.0.1:8086&peer=1', 400,
			'peer and id at once are not allowed' ],
	);

	for my $row (@rows) {
		my ($args, $status, $text) = @$row;
		is(text(act($args, 'down')), "$status $text", $args);
	}

	is(upstream('down')->{revision}, $revision, 'none was a change');
}
