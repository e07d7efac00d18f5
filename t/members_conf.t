#!/usr/bin/env perl

# Tests for upstream_conf, the directive of NGINX Plus until 1.13.10, and for
# id= of upstream_control, which answers in its lines.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/module http proxy upstream_zone/)->plan(65);

my $CONF = <<'CONF';
%%TEST_GLOBALS%%
worker_processes 4;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream backend {
        zone backend_zone 64k;
        server 127.0.0.1:8080;
        server 127.0.0.1:8081 weight=2 max_fails=3 fail_timeout=30s;
        server 127.0.0.1:8082 max_conns=5 backup;
    }

    upstream fresh {
        zone fresh 64k;
        server 127.0.0.1:8080;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
    }

    upstream fixed {
        server 127.0.0.1:8080;
    }

    server {
        listen 127.0.0.1:8090 reuseport;

        location /upstream_conf {
            upstream_conf;
        }

        location /post {
            upstream_conf methods=POST;
        }

        %%CONTROL%%

        location /fresh {
            proxy_pass http://fresh;
        }

        location /moved {
            %%MOVED%%
        }
    }
}
CONF

$t->write_file_expand('nginx.conf', $CONF, MOVED => '');

$t->backend("127.0.0.1:$_") for 8080 .. 8084;
$t->run();
$t->leak_keys('/status', 8090, pages => { backend => 1, fresh => 1 });

directive();
probe();
fixed_members();
listings();
refused();
members();
by_id();
json();

sub conf ($args, $where = 'upstream_conf') {
	my $r = control("/$where?$args", port => 8090);
	return $r->told();
}

sub rows ($where, @rows) {
	for my $row (@rows) {
		my ($args, $wanted) = @$row;
		is(conf($args, $where), $wanted =~ /\A\d{3} / ? $wanted : "200 $wanted",
			"$where: $args");
	}
}

sub directive {
	my @rows = (
		[ 'upstream_conf on;', 'invalid parameter "on"' ],
		[ 'upstream_conf; upstream_conf;', 'is duplicate' ],
		[ 'upstream_conf; upstream_control;', 'is duplicate, or a second handler' ],
	);

	for my $row (@rows) {
		my ($text, $error) = @$row;
		my ($code, $out) = $t->test_config($CONF, MOVED => $text);
		like("$code $out", qr/\A1 .*\Q$error\E/s, $text);
	}
}

# Old programs find out by this reply, and by its line, what they talk to.
sub probe {
	for my $args ('', 'upstream=', 'stream=', 'remove=&id=1') {
		my $mark = $t->log_mark();
		is(conf($args), '400 missing "upstream" argument', "\"$args\"");
		is(scalar $t->grep_log(qr/\[error\] .* missing "upstream" argument, client: 127\.0\.0\.1/, $mark),
			1, "\"$args\": a line");
	}
}

# Nothing of this depends on the version.
sub fixed_members {
	rows('upstream_conf',
		[ 'upstream=backend&id=1&drain=1', "server 127.0.0.1:8081 weight=2 "
			. "max_fails=3 fail_timeout=30s; # id=1 draining\n" ],
		[ 'upstream=backend&id=1&up=', "server 127.0.0.1:8081 weight=2 "
			. "max_fails=3 fail_timeout=30s; # id=1\n" ],
		[ 'upstream=backend&id=0&down=1', "server 127.0.0.1:8080 down; # id=0\n" ],
		[ 'upstream=backend&id=0&up=1&weight=4&max_conns=2&max_fails=0&fail_timeout=5',
			"server 127.0.0.1:8080 weight=4 max_conns=2 max_fails=0 "
			. "fail_timeout=5s; # id=0\n" ],
		[ 'upstream=backend&id=0&weight=1&max_conns=0&max_fails=1&fail_timeout=10s',
			"server 127.0.0.1:8080; # id=0\n" ],
	);
}

sub listings {
	my @lines = (
		"server 127.0.0.1:8080; # id=0\n",
		"server 127.0.0.1:8081 weight=2 max_fails=3 fail_timeout=30s; # id=1\n",
		"server 127.0.0.1:8082 max_conns=5 backup; # id=2\n",
	);

	rows('upstream_conf', [ 'upstream=backend', join '', @lines ],
		[ 'upstream=backend_zone', join '', @lines ],
		map { [ "upstream=backend&id=$_", $lines[$_] ] } 0 .. 2);
	rows('control', map { [ "upstream=backend&id=$_", $lines[$_] ] } 0 .. 2);
	rows('upstream_conf', [ 'upstream=fixed', "server 127.0.0.1:8080;\n" ]);

	is(control('/post?upstream=backend', port => 8090)->status(), 405,
		'methods=POST');
	is(http_post('/post', 'upstream=backend&id=0', port => 8090,
		map_ports => 1, headers => {
			'Content-Type' => 'application/x-www-form-urlencoded',
		})->body(), $lines[0], 'form');
}

sub refused {
	rows('upstream_conf',
		[ 'upstream=nope', '404 upstream is not found: "nope"' ],
		[ 'upstream=*&down=&server=127.0.0.1', '400 missing "id" argument' ],
		[ 'upstream=backend&id=9', '400 server or peer is not found: "9"' ],
		[ 'upstream=backend&id=9&down=', '400 server or peer is not found: "9"' ],
		[ 'upstream=backend&id=x', '400 invalid value "x" in "id"' ],
		[ 'upstream=backend&id=-1&down=', '400 invalid value "-1" in "id"' ],
		[ 'upstream=backend&down=', '400 missing "id" argument' ],
		[ 'upstream=backend&remove=', '400 missing "id" argument' ],
		[ 'upstream=backend&server=127.0.0.1:8083',
			'400 missing "id" argument' ],
		[ 'upstream=backend&remove=&server=127.0.0.1:8080',
			'400 missing "id" argument' ],
		[ 'upstream=backend&add=', q(400 'server' argument required) ],
		[ 'upstream=backend&add=&id=1&server=127.0.0.1:8083',
			'400 add and id at once are not allowed' ],
		[ 'upstream=backend&stream=', '501 stream: not yet supported' ],
		[ 'upstream=backend&add=&server=127.0.0.1:8083&route=a',
			'501 route: not yet supported' ],
		[ 'upstream=backend&add=&server=127.0.0.1:8083&service=http',
			'501 service: not yet supported' ],
		[ 'upstream=backend&add=&server=127.0.0.1:8083&slow_start=30s',
			'501 slow_start: not yet supported' ],
		[ 'upstream=backend&peer=0&down=', '400 unknown argument "peer"' ],
		[ 'upstream=fixed&add=&server=127.0.0.1:8083',
			q(501 only for upstream with 'zone') ],
		[ 'upstream=backend&remove=&id=9', '400 server or peer is not found: "9"' ],
	);
}

# The lines of NGINX Plus's documentation, in its order.
sub members {
	my @rows = (
		[ 'add=&upstream=fresh&server=127.0.0.1:8083',
			"server 127.0.0.1:8083; # id=3\n" ],
		[ 'upstream=fresh&id=3', "server 127.0.0.1:8083; # id=3\n" ],
		[ 'add=&upstream=fresh&server=127.0.0.1:8083',
			'409 server "127.0.0.1:8083" exists' ],
		[ 'add=&upstream=fresh&server=127.0.0.1:8084&backup=&weight=2'
			. '&slow_start=0&route=&service=&down=',
			"server 127.0.0.1:8084 weight=2 backup down; # id=4\n" ],
		[ 'remove=&upstream=fresh&id=1', "server 127.0.0.1:8080; # id=0\n"
			. "server 127.0.0.1:8082; # id=2\nserver 127.0.0.1:8083; # id=3\n"
			. "server 127.0.0.1:8084 weight=2 backup down; # id=4\n" ],
		[ 'remove=&upstream=fresh&id=1', '400 server or peer is not found: "1"' ],
		[ 'upstream=fresh&id=2&server=127.0.0.1:8081',
			"server 127.0.0.1:8081; # id=2\n" ],
		[ 'upstream=fresh&id=3&server=127.0.0.2:8083&weight=2&drain=1',
			"server 127.0.0.2:8083 weight=2; # id=3 draining\n" ],
		[ 'remove=&upstream=fresh&id=4', "server 127.0.0.1:8080; # id=0\n"
			. "server 127.0.0.1:8081; # id=2\n"
			. "server 127.0.0.2:8083 weight=2; # id=3 draining\n" ],
	);

	rows('upstream_conf', @rows);
	is_deeply([ sort keys %{ burst(uri => '/fresh', port => 8090, n => 24)
		->{by_body} } ], [ 8080, 8081 ], 'as the lines say');
}

sub by_id {
	my @rows = (
		[ 'upstream=fresh&id=3&server=127.0.0.1:8083&up=&weight=1',
			"server 127.0.0.1:8083; # id=3\n" ],
		[ 'upstream=fresh&id=3&server=[::1]:8083',
			"server [::1]:8083; # id=3\n" ],
		[ 'upstream=fresh&id=9&server=[::1]:8083',
			'400 server or peer is not found: "9"' ],
		[ 'upstream=fresh&remove=&id=3', "server 127.0.0.1:8080; # id=0\n"
			. "server 127.0.0.1:8081; # id=2\n" ],
		[ 'upstream=fresh&remove=&id=3', '304 ' ],
	);

	rows('control', @rows);
}

sub json {
	my $get = sub ($args) {
		return control("/upstream_conf?$args", port => 8090,
			headers => { Accept => 'application/json' })->json();
	};

	is($get->('upstream=backend&id=1')->{server}{weight}, 2, 'JSON of one');
	is(@{ $get->('upstream=backend')->{servers} }, 3, 'JSON of all');
	is_deeply($get->('upstream=')->{error}, { status => 400,
		code => 'BadArgument', text => 'missing "upstream" argument' },
		'JSON of the probe');

	is($get->('upstream=fresh&add=&server=127.0.0.1:8082')->{server}{id}, 5,
		'JSON of an addition');
}
