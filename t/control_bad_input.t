#!/usr/bin/env perl

# Tests for requests to upstream_control that are wrong: each is refused with
# the right status, in words that quote what was wrong, and changes nothing.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()
	->has(qw/module http proxy mirror upstream_zone/);

$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream u {
        zone u_zone 64k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082 backup;
    }

    upstream ring {
        zone ring 64k;
        hash $arg_a consistent;
        server 127.0.0.1:8081;
    }

    client_body_buffer_size 1k;

    server {
        listen 127.0.0.1:8080;

        location /control {
            upstream_control;
        }

        location /small {
            client_max_body_size 1k;
            upstream_control;
        }

        location /file {
            client_body_in_file_only clean;
            upstream_control;
        }

        location /single {
            client_body_in_single_buffer on;
            client_body_buffer_size 64k;
            upstream_control;
        }

        # The body is read before the handler asks for it.
        location /mirrored {
            mirror /status;
            upstream_control;
        }

        location /status {
            upstream_status;
        }
    }

    # One that takes long request lines.
    server {
        listen 127.0.0.1:8090;
        large_client_header_buffers 4 256k;

        location /control {
            upstream_control;
        }
    }
}
CONF

my $FORM = 'application/x-www-form-urlencoded';
my $BIG = 'x' x 100_000;

# After "upstream=u&"; the server is chosen unless the row does.
my @values = (
	[ 'weight=0',
		'invalid weight "0": use drain or down to stop new requests' ],
	[ 'weight=00',
		'invalid weight "00": use drain or down to stop new requests' ],
	[ 'weight=-1', 'invalid weight "-1": must be between 1 and 65535' ],
	[ 'weight=65536', 'invalid weight "65536": must be between 1 and 65535' ],
	[ 'weight=99999999999999999999',
		'invalid weight "99999999999999999999": must be between 1 and 65535' ],
	[ 'weight=', 'weight: not a number' ],
	[ 'weight', 'weight: not a number' ],
	[ 'weight=x', 'weight: not a number: "x"' ],
	[ 'weight=1x', 'weight: not a number' ],
	[ 'weight=%201', 'weight: not a number' ],
	[ 'weight=+1', 'weight: not a number' ],
	[ 'weight=%2B1', 'weight: not a number' ],
	[ 'weight=1.5', 'weight: not a number' ],
	[ 'weight=0x10', 'weight: not a number' ],
	[ 'weight=1e3', 'weight: not a number' ],
	[ 'weight=%EF%BC%91', 'weight: not a number' ],
	[ 'max_conns=-1', 'invalid max_conns "-1": must be between 0 and 1000000' ],
	[ 'max_conns=1000001',
		'invalid max_conns "1000001": must be between 0 and 1000000' ],
	[ 'max_conns=all', 'max_conns: not a number' ],
	[ 'max_fails=-1', 'invalid max_fails "-1": must be between 0 and 1000000' ],
	[ 'max_fails=1000001',
		'invalid max_fails "1000001": must be between 0 and 1000000' ],
	[ 'max_fails=', 'max_fails: not a number' ],
	[ 'fail_timeout=-1',
		'invalid fail_timeout "-1": must be between 0 and 31536000' ],
	[ 'fail_timeout=31536001',
		'invalid fail_timeout "31536001": must be between 0 and 31536000' ],
	[ 'fail_timeout=2y',
		'invalid fail_timeout "2y": must be between 0 and 31536000' ],
	[ 'fail_timeout=', 'fail_timeout: not a number' ],
	[ 'fail_timeout=soon', 'fail_timeout: not a number' ],
	[ 'fail_timeout=10ms', 'fail_timeout: invalid time "10ms"' ],
	[ 'fail_timeout=1s1m', 'fail_timeout: invalid time "1s1m"' ],
	[ 'fail_timeout=10%20s', 'fail_timeout: invalid time "10 s"' ],

	[ 'up=&down=', 'down and up at once are not allowed' ],
	[ 'down=&drain=', 'down and drain at once are not allowed' ],
	[ 'drain=&up=', 'up and drain at once are not allowed' ],
	[ 'add=&remove=', 'add and remove at once are not allowed' ],
	[ 'down=0', 'invalid value "0" in "down", use "up="' ],
	[ 'up=false', 'invalid value "false" in "up"' ],
	[ 'drain=no', 'invalid value "no" in "drain"' ],
	[ 'verbose=off', 'invalid value "off" in "verbose"' ],
	[ 'down=&backup=', 'backup: only for a server that is added' ],

	[ 'down=&dwon=', 'unknown argument "dwon"' ],
	[ 'down=&Weight=1', 'unknown argument "Weight"' ],
	[ 'down=&=', 'unknown argument ""' ],
	[ 'down=&%3Cscript%3E=', 'unknown argument "<script>"' ],
	[ 'down=&' . 'n' x 100 . '=',
		'unknown argument "' . 'n' x 64 . '..."' ],
	[ 'down=&down=', 'duplicate argument "down"' ],
	[ 'weight=1&weight=2', 'duplicate argument "weight"' ],
	[ 'weight=1&weigh%74=1', 'duplicate argument "weight"' ],
	[ 'down=&upstream=u', 'duplicate argument "upstream"' ],
	[ 'down=&format=yaml', 'invalid value "yaml" in "format"' ],
	[ 'down=&format=', 'invalid value "" in "format"' ],
	[ 'down=&note=' . 'x' x 129,
		'note: 129 bytes are too long, at most 128 are kept' ],
	[ 'down=&note=' . '%E2%82%AC' x 43,
		'note: 129 bytes are too long, at most 128 are kept' ],

	[ 'down=%', 'invalid percent-encoding in "down=%"' ],
	[ 'down=%4', 'invalid percent-encoding in "down=%4"' ],
	[ 'down=%zz', 'invalid percent-encoding in "down=%zz"' ],
	[ 'do%wn=', 'invalid percent-encoding in "do%wn="' ],
	[ 'down=&note=a%0Ab', 'control character in "note=a%0Ab"' ],
	[ 'down=&note=a%00', 'control character in "note=a%00"' ],
	[ 'down=&note=%7F', 'control character in "note=%7F"' ],
	[ 'down=&note=%FF', 'invalid utf-8 in "note=%FF"' ],
	[ "down=&note=\xff", 'invalid utf-8 in "note=\\xff"' ],
	[ 'down=&note=%C0%AF', 'invalid utf-8 in "note=%C0%AF"' ],
	[ 'down=&note=%ED%A0%80', 'invalid utf-8 in "note=%ED%A0%80"' ],
);

# Whole queries: arguments, status, text.
my @queries = (
	[ '', 400, 'upstream required' ],
	[ 'upstream=', 400, 'upstream required' ],
	[ 'upstream', 400, 'upstream required' ],
	[ 'server=127.0.0.1:8081&down=', 400, 'upstream required' ],
	[ 'upstream=nope', 404, 'upstream is not found: "nope"' ],
	[ 'upstream=UU', 404, 'upstream is not found' ],
	[ 'upstream=u%20', 404, 'upstream is not found' ],
	[ 'upstream=nope&server=127.0.0.1:8081&down=', 404,
		'upstream is not found' ],
	[ 'upstream=u&down=', 400, "'server' argument required" ],
	[ 'upstream=u&weight=2', 400, "'server' argument required" ],
	[ 'upstream=u&server=&down=', 400, "'server' argument required" ],
	[ 'upstream=u&server=nope&down=', 400, 'server or peer is not found' ],
	[ 'upstream=u&server=127.0.0.1&down=', 400,
		'server or peer is not found: "127.0.0.1", did you mean "127.0.0.1:' ],
	[ 'upstream=u&peer=1&down=', 400, 'bad peer id: 1' ],
	[ 'upstream=u&peer=-1&down=', 400, 'server or peer is not found' ],
	[ 'upstream=u&peer=99999999999999999999&down=', 400, 'bad peer id' ],
	[ 'upstream=u&id=2&down=', 400, 'server or peer is not found' ],
	[ 'upstream=u&server=http://127.0.0.1/&down=', 400,
		'invalid address "http://127.0.0.1/": a URL, where HOST:PORT is needed' ],
	[ 'upstream=u&note=x', 400, 'note: nothing is to be changed' ],
	[ 'upstream=u&id=-1&down=', 400, 'invalid value "-1" in "id"' ],
	[ 'upstream=u&id=&down=', 400, 'invalid value "" in "id"' ],
	[ 'upstream=u&id=one', 400, 'invalid value "one" in "id"' ],
	[ 'upstream=u&id=0&servers=127.0.0.1:8081&down=', 400,
		'servers and id at once are not allowed' ],
	[ 'upstream=u&peer=0&id=0&down=', 400,
		'peer and id at once are not allowed' ],
	[ 'upstream=u&servers=&down=', 400, 'invalid value "" in "servers"' ],
	[ 'upstream=u&servers=,&down=', 400, 'invalid value "," in "servers"' ],
	[ 'upstream=u&servers=127.0.0.1:8081,nope&down=', 400,
		'server or peer is not found' ],
	[ 'upstream=ring&peer=0&weight=65535', undef ],
	[ join('&', 'upstream=u', map { "a$_=" } 1 .. 64), 414,
		'more than 64 arguments' ],
);

my @bodies = (
	# name, request, status, text
	[ 'no content type', { headers => {} }, 415 ],
	[ 'text', { headers => { 'Content-Type' => 'text/plain' } }, 415 ],
	[ 'JSON', { headers => { 'Content-Type' => 'application/json' },
		body => '{"down":true}' }, 415 ],
	[ 'multipart', { headers => { 'Content-Type' =>
		'multipart/form-data; boundary=x' } }, 415 ],
	[ 'an argument in query and form', { uri =>
		'/control?upstream=u&peer=0&down=', body => 'down=' }, 400,
		'duplicate argument "down"' ],
	[ 'junk in the form', { body => 'upstream=u&down=%zz' }, 400,
		'invalid percent-encoding in "down=%zz"' ],
	[ '100 kB', { body => "upstream=u&id=0&down=&note=$BIG" }, 413,
		'request body is larger than 65536 bytes' ],
	[ '100 kB in chunks', { body => chunks("upstream=u&id=0&down=&note=$BIG"),
		chunked => 1 }, 413, 'request body is larger than 65536 bytes' ],
	[ 'query and form together', { uri => '/control?upstream=u&id=0&note='
		. 'x' x 2000, body => 'down=' . 'x' x 64_000 }, 413,
		'request body is larger than 65536 bytes' ],
	[ '60 kB in a file', { body => 'upstream=u&id=0&down=&note='
		. 'x' x 60_000 }, 400,
		'note: 60000 bytes are too long, at most 128 are kept' ],
	[ 'binary', { body => join '', map { chr } 128 .. 255 }, 400,
		'invalid utf-8 in "' . join('', map { sprintf '\\x%02x', $_ }
			128 .. 143) . '..."' ],
);

$t->plan(2 * (@values + @queries + @bodies) + 46);

$t->run();
$t->leak_keys('/status', 8080);

my $before = state();

refused();
refused_bodies();
large();
good_bodies();
connections();
old_protocol();

sub state () {
	my $all = get_json('/status')->{upstreams};

	return join "\n", map {
		my $u = $all->{$_};
		("$_ $u->{revision}", map { join ' ',
			@$_{qw/id state weight max_conns max_fails fail_timeout/} }
			@{ $u->{peers} });
	} sort keys %$all;
}

# Nothing is changed, whatever was wrong.
sub unchanged ($name) {
	my $now = state();
	is($now, $before, "$name: nothing was changed");
	$before = $now;
}

sub chunks ($text) {
	return join('', map { sprintf "%x\r\n%s\r\n", length, $_ }
		unpack '(a5000)*', $text) . "0\r\n\r\n";
}

sub shown ($text) {
	$text = substr($text, 0, 50) . '...' if length $text > 53;
	return $text =~ s/[^ -~]/?/gr;
}

sub refused {
	for my $row (@values) {
		my ($args, $text) = @$row;
		my $r = http_get("/control?upstream=u&peer=0&$args");
		like($r->told(), qr/\A\Q400 $text\E/, shown($args));
		unchanged(shown($args));
	}

	for my $row (@queries) {
		my ($args, $status, $text) = @$row;
		my $r = control("/control?$args");

		if (!defined $status) {
			# The ring has 160 points for each unit of weight.
			($status, $text) = (400, 'invalid weight: the sum of the weights would be 65535, at most 16384 is allowed');
		}

		like($r->told(), qr/\A\Q$status $text\E/, shown($args));
		unchanged(shown($args));
	}
}

sub refused_bodies {
	for my $row (@bodies) {
		my ($name, $request, $status, $text) = @$row;
		my $r = http_request(
			uri => '/control', method => 'POST',
			body => 'upstream=u&peer=0&down=', %$request,
			headers => { 'Content-Type' => $FORM,
				$request->{chunked} ? ('Transfer-Encoding' => 'chunked',
					'Content-Length' => undef) : (),
				$request->{headers}
					? ('Content-Type' => undef, %{ $request->{headers} }) : () },
		);
		$text //= '';
		like($r->told(), qr/\A\Q$status $text\E/, "body: $name");
		unchanged("body: $name");
	}
}

# nginx refuses what is too long for it; the module what is too long for all.
sub large {
	my $args = 'upstream=u&peer=0&down=&note=';

	is(http_get("/control?$args$BIG")->status(), 414,
		'100 kB of arguments, for nginx');
	my $r = http_get("/control?$args$BIG", port => 8090);
	is($r->told(),
		'414 arguments longer than 65536 bytes', 'for the module');
	$r = http_get("/control?$args" . 'x' x 60_000, port => 8090);
	is($r->status(), 400, 'less than that is looked at');
	$r = http_get('/control?upstream=' . 'x' x 60_000, port => 8090);
	is($r->status(), 404, 'a long name');
	$r = http_get('/control?' . '&' x 60_000, port => 8090);
	is($r->status(), 400, 'empty arguments');
	$r = http_get('/control?upstream=u&' . 'a&' x 30_000, port => 8090);
	is($r->status(), 400, 'as many as fit');

	is(http_post('/small', "upstream=u&peer=0&down=&note=$BIG",
		headers => { 'Content-Type' => $FORM })->status(), 413,
		'client_max_body_size');
	$r = http("POST /control HTTP/1.1\r\nHost: a\r\nContent-Type: $FORM\r\n"
		. "Connection: close\r\nExpect: 100-continue\r\n"
		. "Content-Length: 100000\r\n\r\n", replies => 1);
	like($r, qr/^HTTP\/1.1 413 .*larger than 65536 bytes\n\z/ms,
		'answered before what is too large was sent');
	unchanged('large');
}

# Forms are read whole, in whatever pieces they come.
sub good_bodies {
	my %form = (method => 'POST', uri => '/control');
	my $down = 'upstream=u&peer=0&down=&note=';
	my $up = 'upstream=u&peer=0&up=';

	my @rows = (
		[ 'short', "$down~" ],
		[ 'of several buffers', $down . '%78' x 128 ],
		[ 'in a file', $down . '&' x 20_000 ],
		[ 'of 64 kB', $down . '&' x (65_536 - length $down) ],
	);

	for my $row (@rows) {
		my ($name, $body) = @$row;

		for my $chunked (0, 1) {
			my $r = http_request(%form, headers => {
				'Content-Type' => "$FORM; charset=UTF-8",
				$chunked ? ('Transfer-Encoding' => 'chunked',
					'Content-Length' => undef) : (),
			}, body => $chunked ? chunks($body) : $body);

			like($r->told(), qr/\A200 server .* down;$/m,
				"form $name" . ($chunked ? ', chunked' : ''));
			is(http_get("/control?$up")->status(), 200, 'back');
		}
	}

	for my $uri (qw{/file /single /mirrored}) {
		like(http_request(%form, uri => $uri, body => $_, headers => {
			'Content-Type' => $FORM })->body(), qr/^server .* down;$/m,
			"form for $uri, " . length) for "$down~", $down . '&' x 20_000;
		http_get("/control?$up");
	}

	ok($t->grep_log(qr/body is buffered to a temporary file/), 'files were used');

	# A body that comes slowly.
	my $h = http_start(%form, body => substr($down, 0, 9), headers => {
		'Content-Type' => $FORM, 'Content-Length' => length $down });
	is(http_get('/status')->status(), 200, 'nobody waits for it');
	syswrite $h->{over}, substr $down, 9;
	is(http_finish($h)->status(), 200, 'form in two pieces');

	# A client that goes away in the middle.
	http_get("/control?$up");
	$before = state();
	$h = http_start(%form, body => $down, headers => {
		'Content-Type' => $FORM, 'Content-Length' => 1 + length $down });
	undef $h;
	unchanged('a form that is cut');
}

# What was not read of a refused request is not taken for the next one.
sub connections {
	my $next = "GET /control?upstream=u&id=0 HTTP/1.1\r\nHost: a\r\n"
		. "Connection: close\r\n\r\n";
	my $body = "GET /control?upstream=u&id=0&down= HTTP/1.1\r\nHost: a\r\n\r\n";
	my $length = length $body;

	my @rows = (
		[ 'wrong type', 415, "POST /control HTTP/1.1\r\nHost: a\r\n"
			. "Content-Length: $length\r\n\r\n$body" ],
		[ 'wrong method', 405, "PUT /control HTTP/1.1\r\nHost: a\r\n"
			. "Content-Length: $length\r\n\r\n$body" ],
		[ 'wrong method, in chunks', 405, "DELETE /control HTTP/1.1\r\n"
			. "Host: a\r\nTransfer-Encoding: chunked\r\n\r\n" . chunks($body) ],
		[ 'GET with a body', 200, "GET /control?upstream=u&id=0 HTTP/1.1\r\n"
			. "Host: a\r\nContent-Length: $length\r\n\r\n$body" ],
		[ 'too large', 413, "POST /control HTTP/1.1\r\nHost: a\r\n"
			. "Content-Type: $FORM\r\nContent-Length: 100000\r\n\r\n$BIG" ],
		[ 'another site', 403, "POST /control HTTP/1.1\r\nHost: a\r\n"
			. "Origin: http://b\r\nContent-Length: $length\r\n\r\n$body" ],
		[ 'status with a body', 405, "POST /status HTTP/1.1\r\nHost: a\r\n"
			. "Content-Length: $length\r\n\r\n$body" ],
	);

	for my $row (@rows) {
		my ($name, $status, $bytes) = @$row;
		my $raw = http($bytes . $next, replies => 2);
		is(join(' ', $raw =~ m{HTTP/1.1 (\d+)}g), "$status 200",
			"$name: the connection goes on");
	}

	unchanged('bodies that were not read');
}

sub old_protocol {
	my $get = sub ($line) {
		return http("$line\r\n\r\n") =~ s/.*\r\n\r\n//sr;
	};
	my $listing = control('/control?upstream=u')->body();

	is($t->logical($get->('GET /control?upstream=u HTTP/1.0')), $listing,
		'HTTP/1.0');
	is($get->('GET /control?upstream=u&peer=9&up= HTTP/1.0'), "bad peer id: 9\n",
		'HTTP/1.0, refused');
	is($t->logical(http("POST /control HTTP/1.0\r\nContent-Type: $FORM\r\n"
		. "Content-Length: 10\r\n\r\nupstream=u") =~ s/.*\r\n\r\n//sr),
		$listing, 'HTTP/1.0, a form');
}
