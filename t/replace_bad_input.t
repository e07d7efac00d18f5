#!/usr/bin/env perl

# Tests for lists of replace= that are wrong, too large, or never come, and for
# lists that find no room: each gets a precise answer and changes nothing.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP ();
use Socket qw/SOL_SOCKET SO_RCVBUF/;
use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/module http proxy upstream_zone/);

my $counts = $t->has_version('1.27.3');

$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream_control_zone 32m;

    upstream u {
        zone u 128k;
        upstream_capacity 20;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082 backup;
    }

    upstream v {
        zone v 128k;
        server 127.0.0.1:8081;
    }

    upstream ip {
        zone ip 128k;
        ip_hash;
        server 127.0.0.1:8081;
    }

    upstream large {
        zone large 16m;
        server 127.0.0.1:8081;
    }

    upstream fixed {
        server 127.0.0.1:8081;
    }

    server {
        listen 127.0.0.1:8080 reuseport;

        location /status {
            upstream_status;
        }

        # nginx's own bound is 1m.
        location /control {
            upstream_control;
        }

        location /unbounded {
            client_max_body_size 0;
            upstream_control;
        }

        location /hurried {
            client_body_timeout 1s;
            upstream_control;
        }

        location /post {
            upstream_control methods=POST;
        }

        location /conf {
            upstream_conf;
        }

        location /u {
            proxy_pass http://u;
        }
    }
}
CONF

$t->backend('127.0.0.1:8081');
$t->run();
$t->leak_keys('/status', 8080, pages => { u => 40 });

my @NAMES = qw/u v ip large/;

sub post ($args, $body, %more) {
	return http_request(method => 'POST', timeout => 30,
		uri => '/' . ($more{to} // 'control') . "?$args", body => $body,
		headers => { 'Content-Type' => 'text/plain', %{ $more{headers} // {} } });
}

sub text ($r) { return $r->told() }

sub shown () {
	my $all = get_json('/status')->{upstreams};
	return join "\n", map {
		my $upstream = $all->{$_};
		join ' ', $_, $upstream->{revision},
			map { "$_->{id}:$_->{name}:$_->{weight}:$_->{state}" }
				$upstream->{peers}->@*
	} @NAMES;
}

my $before = shown();

sub unchanged ($name) { is(shown(), $before, "$name: nothing was changed") }

# What is in the body.

my @many = map { sprintf "server 10.0.%d.%d:80;", $_ / 250, $_ % 250 } 0 .. 9_999;
my @bad = @many;
$bad[6_999] = 'server 10.0.27.999:80;';
my @twice = (@many[0 .. 9_998], 'server 10.0.7.7;');
my $json = JSON::PP->new->canonical;

for (
	[ 'cut short', 'upstream=u&replace=', "server 10.0.0.1;\nserver 10.0.0.2",
		'400 line 2: the list ends where ";" must follow' ],
	[ 'cut inside a block', 'replace=', "upstream u {\nserver 10.0.0.1;\n",
		'400 line 3: the list ends where "}" must follow' ],
	[ 'JSON, cut short', 'upstream=u&replace=', '[{"server":"10.0.0.1"},{"serv',
		'400 line 1, server 2: the list ends where the other quote must follow',
		'application/json' ],
	[ 'a bad line among many', 'upstream=large&replace=', join("\n", @bad),
		'400 line 7000: invalid address "10.0.27.999:80": not an ip address, '
			. 'and no server has this text' ],
	[ 'a bad word among many', 'upstream=large&replace=',
		join("\n", @many[0 .. 8_000], 'server 10.1.0.0 wieght=2;'),
		'400 line 8002: unknown parameter "wieght=2"' ],
	[ 'a bad server among many in JSON', 'upstream=large&replace=',
		$json->encode([ map { { server => $_ < 7_000 ? "10.0.0.1:@{[ $_ + 1 ]}" : 'x:0' } } 0 .. 7_999 ]),
		'400 line 1, server 7001: invalid address "x:0": port must be between 1 and 65535',
		'application/json' ],
	[ 'the same twice', 'upstream=large&replace=', join("\n", @twice),
		'400 line 10000: server "10.0.7.7" is also in line 1758' ],
	[ 'two lists of one upstream', 'replace=',
		"upstream u { server 10.0.0.1; }\nupstream u { server 10.0.0.2; }",
		'400 line 2: upstream "u" is also in line 1' ],
	[ 'a name that is not there', 'upstream=u&replace=', 'server app.example.com:80;',
		'400 line 1: host name "app.example.com:80" where an address is needed, '
			. 'and no server has this text' ],
	[ 'a page', 'upstream=u&replace=', "<html>\n<title>502</title></html>",
		'400 line 2: the list ends where ";" must follow' ],
	[ 'bytes', 'upstream=u&replace=', "server \xff\xfe;",
		'400 line 1: invalid utf-8 in "\xff\xfe"' ],
	[ 'nothing', 'upstream=u&replace=', '',
		'409 the list has no servers, use "force=" to remove all of them' ],
	[ 'a backup where there are none', 'upstream=ip&replace=',
		"server 127.0.0.1:9;\nserver 10.0.0.1 backup;",
		'400 line 2: balancing method does not support parameter "backup"' ],
	[ 'a static upstream', 'upstream=fixed&replace=', 'server 10.0.0.1;',
		'501 only for upstream with \'zone\'' ],
	[ 'a static upstream among others', 'replace=',
		"upstream u { server 10.0.0.1; }\nupstream fixed { server 10.0.0.1; }",
		'501 upstream "fixed": only for upstream with \'zone\'' ],
	[ 'no upstream', 'upstream=w&replace=', 'server 10.0.0.1;',
		'404 upstream is not found: "w"' ],
	[ 'a form', 'upstream=u&replace=', 'server=10.0.0.1',
		'415 replace: unsupported Content-Type "application/x-www-form-urlencoded", the list must be "text/plain" or "application/json"',
		'application/x-www-form-urlencoded' ],
	[ 'replace= in a form', 'upstream=u', 'replace=',
		'400 replace: must be in the query string, the body is the list',
		'application/x-www-form-urlencoded' ],
	[ 'a note that is too long', 'upstream=u&replace=&note=' . 'n' x 200,
		'server 10.0.0.1;', '400 note: 200 bytes are too long, at most 128 are kept' ],
) {
	my ($name, $args, $body, $wanted, $type) = @$_;
	my $r = post($args, $body, headers => { $type ? ('Content-Type' => $type) : () });
	is(text($r), $wanted, $name);
	unchanged($name);
}

is(text(http_get('/control?upstream=u&replace=')), '405 replace: only POST allowed', 'GET');
is(text(http_get('/post?upstream=u&replace=')), '405 only POST allowed', 'GET where it is never allowed');
is(post('upstream=u&replace=', 'server 10.0.0.1;',
	headers => { Origin => 'http://elsewhere' })->status(), 403, 'another site');
is(post('upstream=u&replace=', 'server 10.0.0.1;', to => 'conf')->status(), 415,
	'where requests are those of NGINX Plus');
unchanged('methods and sites');

# How the body comes.

my $line = "server 10.0.0.1;\n";
is(post('upstream=u&replace=', $line x 80_000)->status(), 413, 'longer than nginx allows');
is(text(post('upstream=u&replace=', '#' x (50 << 20), to => 'unbounded')),
	'413 request body is larger than 16777216 bytes', '50 MB');
my $chunk = sprintf "%x\r\n%s\r\n", 1 << 20, '#' x (1 << 20);
like(http("POST /unbounded?upstream=u&replace= HTTP/1.1\r\nHost: localhost\r\n"
	. "Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
	. $chunk x 17 . "0\r\n\r\n", timeout => 30),
	qr/\AHTTP\/1.1 413 .*\r\n\r\nrequest body is larger than 16777216 bytes\n\z/s,
	'17 MB in chunks');
like(post('upstream=u&replace=&dry_run=', '#' x (15 << 20) . "\n$line", to => 'unbounded')->body(),
	qr/\Au: 1 added, 2 removed/, '15 MB');
like(http("POST /hurried?upstream=u&replace= HTTP/1.1\r\nHost: localhost\r\n"
	. "Content-Type: text/plain\r\nContent-Length: 100\r\n\r\n$line", timeout => 10),
	qr/\A\z|\AHTTP\/1.1 408 /, 'a client that stops writing');
unchanged('a client that stops writing');

for my $length (0 .. 3) {
	my $s = Test::Nginx::HTTP::dial(port => 8080);
	select undef, undef, undef, 0.05;
	syswrite $s, "POST /control?upstream=u&replace= HTTP/1.1\r\nHost: localhost\r\n"
		. "Content-Type: text/plain\r\nContent-Length: 30\r\n\r\n"
		. substr $line, 0, 5 * $length;
	close $s;
}
is(http_get('/u')->status(), 200, 'clients that go away');
unchanged('clients that go away');

# No room.

my $r = post('upstream=u&replace=', join "\n", @many[0 .. 1_999]);
like(text($r), $counts
	? qr/\A500 no memory left in zone "u", \d{6,} bytes are needed: raise the size of "zone"\z/
	: qr/\A500 no place left, the upstream has its \d+ servers: raise "upstream_capacity"/,
	'more than the zone can hold');
unchanged('more than the zone can hold');
$r = post('replace=', "upstream v { server 127.0.0.9:80; }\nupstream u {"
	. join("\n", @many[0 .. 1_999]) . '}');
like(text($r), $counts ? qr/\A500 upstream "u": no memory left in zone "u", /
	: qr/\A500 upstream "u": no place left, /, 'nor beside another upstream');
unchanged('nor beside another upstream');

SKIP: {
	skip('as many servers only since nginx 1.27.3', 4) unless $counts;

	# A client that does not read a reply that is longer than what the kernel
	# keeps for it.
	my $s = Test::Nginx::HTTP::dial(port => 8080);
	setsockopt $s, SOL_SOCKET, SO_RCVBUF, pack 'i', 4_096;
	select undef, undef, undef, 0.05;
	my $body = join "\n", @many, '';
	my $request = "POST /control?upstream=large&replace=&format=json HTTP/1.1\r\nHost: localhost\r\n"
		. "Content-Type: text/plain\r\nContent-Length: " . length($body) . "\r\n\r\n$body";
	$s->blocking(1);
	print {$s} $request;
	$s->flush();
	ok($t->wait_for(sub {
		get_json('/status?upstream=large')->{upstreams}{large}{revision}
	}, 10, 'the change is made'), 'a client that stops reading');
	is(http_get('/u')->status(), 200, 'others are served');
	is(post('upstream=large&replace=', 'server 127.0.0.1:8081;')->status(), 200,
		'and it can be changed again');
	close $s;
	my $large = get_json('/status?upstream=large')->{upstreams}{large};
	is(scalar $large->{peers}->@*, 1, 'in whole');
}

$t->done_testing();
