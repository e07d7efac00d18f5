#!/usr/bin/env perl

# Tests for upstream_control in the form of EBLB's /upstreamcontrol: stream=,
# peer=, down=.  Scripts compare these bodies byte for byte.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()
	->has(qw/module http proxy upstream_zone unix ipv6/)
	->plan(99);

$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 4;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream luaupstfoo {
        zone foo_zone 64k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8084 backup;
        server [::1]:8083;
        server unix:%%TESTDIR%%/backend.sock;
    }

    upstream fixed {
        server 127.0.0.1:8081;
    }

    server {
        listen 127.0.0.1:8080 backlog=1024;

        location / {
            proxy_pass http://luaupstfoo;
        }

        location /upstreamcontrol {
            upstream_control;
        }

        location /upstreamstatus {
            upstream_status;
        }
    }
}
CONF

my $REFRESH = '<html><head><META HTTP-EQUIV="REFRESH" CONTENT="1; '
	. qq(URL=/upstreamstatus"></head></html>\n);
my $NOTHING = "<b>not yet implemented !</b>\n";

my @backends = map { $t->backend($_, body => $_) } '127.0.0.1:8081',
	'127.0.0.1:8082', '[::1]:8083', 'unix:%%TESTDIR%%/backend.sock';

$t->run();
$t->leak_keys('/upstreamstatus', 8080);

bodies();
address();
everyone();
at_once();
arguments();
gui();
form();

sub act ($args, %request) {
	return http_request(uri => "/upstreamcontrol?$args", %request);
}

sub states () {
	return join ' ', map { $_->{state} } @{ get_json(
		'/upstreamstatus?upstream=luaupstfoo')->{upstreams}{luaupstfoo}{peers} };
}

sub revision () {
	return get_json('/upstreamstatus?upstream=luaupstfoo')
		->{upstreams}{luaupstfoo}{revision};
}

# Who answers, of all primaries, in all workers.
sub answers () {
	my $got = burst(uri => '/', n => 60, concurrency => 12);
	die "requests failed\n" if $got->{failed};

	return join ' ', map { s{.*[:/]}{}r } sort keys %{ $got->{by_body} };
}

sub bodies {
	my @rows = (
		# arguments, status, body, states afterwards
		[ 'down=true&peer=0&stream=luaupstfoo', 200, "down true nil\n", 0 ],
		[ 'down=1&peer=1&stream=luaupstfoo', 200, "down true nil\n", 0, 1 ],
		[ 'down=false&peer=0&stream=luaupstfoo', 200, "up true nil\n", 1 ],
		[ 'down=0&peer=1&stream=luaupstfoo', 200, "up true nil\n" ],
		[ 'stream=luaupstfoo&vdown=true&down=false&peer=2', 200,
			"down true nil\n", 2 ],
		[ 'stream=luaupstfoo&vdown=false&down=true&peer=2', 200,
			"up true nil\n" ],
		[ 'down=true&addr=127.0.0.1:8085&peer=0&stream=luaupstfoo', 200,
			"down true nil\n", 0 ],
		[ 'down=0&peer=0&stream=luaupstfoo&name=x&server=y', 200,
			"up true nil\n" ],
		[ 'down=true&peer=0&stream=foo_zone', 200, "down true nil\n", 0 ],
		[ 'down=0&peer=0&stream=foo_zone&upstream', 400, "upstream required\n",
			0 ],
		[ 'down=0&peer=00&stream=foo_zone', 200, "up true nil\n" ],

		[ 'down=true&peer=0&stream=nope', 404,
			"down nil upstream not found\n" ],
		[ 'down=false&peer=0&stream=nope', 404,
			"up nil upstream not found\n" ],
		[ 'addr=127.0.0.1:8085&peer=0&stream=nope', 404,
			"changed nil upstream not found\n" ],
		[ 'down=true&peer=4&stream=luaupstfoo', 400,
			"down nil bad peer id\n" ],
		[ 'down=0&peer=4&stream=luaupstfoo', 400, "up nil bad peer id\n" ],
		[ 'down=1&stream=luaupstfoo', 400, "down nil bad peer id\n" ],
		[ 'down=1&peer=&stream=luaupstfoo', 400, "down nil bad peer id\n" ],
		[ 'down=1&peer=one&stream=luaupstfoo', 400, "down nil bad peer id\n" ],
		[ 'down=1&peer=-1&stream=luaupstfoo', 400, "down nil bad peer id\n" ],
		[ 'down=1&peer=%2B1&stream=luaupstfoo', 400, "down nil bad peer id\n" ],
		[ 'down=1&peer=1.0&stream=luaupstfoo', 400, "down nil bad peer id\n" ],
		[ 'down=1&peer=99999999999999999999999&stream=luaupstfoo', 400,
			"down nil bad peer id\n" ],
		[ 'down=maybe&peer=0&stream=luaupstfoo', 400,
			qq(down nil invalid value "maybe"\n) ],
		[ 'down=True&peer=0&stream=luaupstfoo', 400,
			qq(down nil invalid value "True"\n) ],
		[ 'down=&peer=0&stream=luaupstfoo', 400,
			qq(down nil invalid value ""\n) ],
		[ 'down=true&peer=0&stream=fixed', 501,
			qq(down nil upstream has no "zone": add "upstream_auto_zone 64k;" )
			. qq(or "zone NAME 64k;"\n) ],
		[ 'down=1&peer=0&stream=luaupstfoo&nope=', 400,
			qq(down nil unknown argument "nope"\n) ],

		[ 'peer=0&stream=luaupstfoo', 200, $NOTHING ],
		[ 'stream=luaupstfoo', 200, $NOTHING ],
		[ 'stream=nope', 200, $NOTHING ],
		[ 'stream=&peer=0&down=1', 400, "upstream required\n" ],
		[ '', 400, "upstream required\n" ],
	);

	for my $row (@rows) {
		my ($args, $status, $body, @down) = @$row;
		my @states = ('up') x 5;
		$states[$_] = 'down' for @down;

		my $r = act($args);
		is($r->status() . ' ' . $r->body(), "$status $body", "\"$args\"");
		is(states(), "@states", "\"$args\": states");
	}
}

# The line of EBLB's example, and the way back.
sub address {
	for my $address ('192.168.169.2:85', '127.0.0.1:' . port(8081)) {
		my $r = act("addr=$address&peer=0&stream=luaupstfoo");
		is($r->status() . ' ' . $r->body(), "200 changed true nil\n", $address);
	}

	my $r = act('addr=192.168.169.2:85&peer=4&stream=luaupstfoo');
	is($r->status() . ' ' . $r->body(), "400 changed nil bad peer id\n", 'no such index');
	is(states(), 'up up up up up', 'states as before');
}

# Whichever worker is asked, the position is that of the primaries in the
# order of the configuration, where backups do not count.
sub everyone {
	is(answers(), '8081 8082 8083 backend.sock', 'all answer');
	act('stream=luaupstfoo&peer=2&down=1');
	is(answers(), '8081 8082 backend.sock', 'IPv6 is down');
	act('stream=luaupstfoo&peer=3&down=1');
	is(answers(), '8081 8082', 'unix socket is down');
	act("stream=luaupstfoo&peer=$_&down=0") for 2, 3;
	is(answers(), '8081 8082 8083 backend.sock', 'all are back');
}

# No request that begins after the reply reaches the server, in any worker.
sub at_once {
	my $load = $t->load(uri => '/', seconds => 20, concurrency => 20);
	my $body;

	for my $round (1 .. 2) {
		is(act('down=true&peer=0&stream=luaupstfoo')->body(),
			"down true nil\n", 'down under load');
		my $got = burst(uri => '/', n => 1000, concurrency => 100);
		is_deeply([ @$got{qw/ok failed/},
			grep { /8081|@{[ port(8081) ]}/ } keys %{ $got->{by_body} } ],
			[ 1000, 0 ], 'no request to it');

		is(act('down=false&peer=0&stream=luaupstfoo')->body(),
			"up true nil\n", 'up under load');
		$got = burst(uri => '/', n => 200, concurrency => 20);
		cmp_ok($got->{by_body}{'127.0.0.1:8081'} // 0, '>', 0,
			'it is back');
	}

	is($load->finish(now => 1)->{failed}, 0, 'no request was lost');
}

# What changes nothing is neither counted nor logged.
sub arguments {
	my $revision = revision();
	my $mark = $t->log_mark();

	is(act('down=0&peer=0&stream=luaupstfoo')->body(), "up true nil\n",
		'up already');
	is(revision(), $revision, 'no revision');
	is(scalar $t->grep_log(qr/\[notice\]/, $mark), 0, 'no line');

	act('down=1&peer=3&stream=luaupstfoo&note=disk');
	is(revision(), $revision + 1, 'a revision');
	my @lines = $t->grep_log(qr/\[notice\].*luaupstfoo/, $mark);
	is(@lines, 1, 'one line');
	like($lines[0], qr/upstream "luaupstfoo" server "unix:[^"]+": state up -> down, revision @{[ $revision + 1 ]}, id \d+, note: "disk", client: 127\.0\.0\.1/,
		'which says all');
	act('down=0&peer=3&stream=luaupstfoo');
}

sub gui {
	my @rows = (
		[ 'down=1&peer=1', 200, "down true nil\n" ],
		[ 'down=0&peer=1', 200, "up true nil\n" ],
		[ 'down=1&peer=9', 400, "down nil bad peer id\n" ],
		[ 'peer=1', 200, $NOTHING ],
		[ 'down=%3Cscript%3E&peer=1', 400,
			"down nil invalid value &quot;&lt;script&gt;&quot;\n" ],
	);

	for my $row (@rows) {
		my ($args, $status, $body) = @$row;
		my $r = act("$args&stream=luaupstfoo&gui=1");
		is_deeply([ $r->status(), $r->body(), $r->header('Content-Type') ],
			[ $status, $body . $REFRESH, 'text/html; charset=utf-8' ],
			"gui: $args");
	}
}

sub form {
	my %form = (method => 'POST', headers => {
		'Content-Type' => 'application/x-www-form-urlencoded',
	});

	is(act('', %form, body => 'down=1&peer=0&stream=luaupstfoo')->body(),
		"down true nil\n", 'form');
	is(act('stream=luaupstfoo', %form, body => 'vdown=0&peer=0')->body(),
		"up true nil\n", 'form and query');
	is(act('down=1&peer=0&stream=luaupstfoo', method => 'POST', body => '')
		->body(), "down true nil\n", 'POST with a query only');
	is(http("GET /upstreamcontrol?down=0&peer=0&stream=luaupstfoo HTTP/1.0\r\n\r\n")
		=~ s/.*\r\n\r\n//sr, "up true nil\n", 'HTTP/1.0');
	is(states(), 'up up up up up', 'all up');
}
