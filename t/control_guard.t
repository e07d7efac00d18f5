#!/usr/bin/env perl

# Tests for who may change anything: methods, subrequests, and requests that a
# page of another site makes a browser send.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()
	->has(qw/module http proxy rewrite upstream_zone mirror ssi auth_request
		ipv6/);

$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream u {
        zone u_zone 64k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
    }

    server {
        listen 127.0.0.1:8080;
        listen [::1]:8080;

        location /control {
            upstream_control;
        }

        location /post {
            upstream_control methods=POST;
        }

        location /status {
            upstream_status;
        }

        location /mirrored.html {
            mirror /control;
        }

        location /pages {
            ssi on;
        }

        location /auth {
            auth_request /control;
        }

        location /moved {
            rewrite ^ /control last;
        }

        location /error {
            error_page 404 =200 /control?upstream=u&peer=0&drain=;
            return 404;
        }
    }
}
CONF

my $FORM = { 'Content-Type' => 'application/x-www-form-urlencoded' };
my $DOWN = 'upstream=u&peer=0&down=';
my $CROSS_SITE = 'cross-site request refused: use curl, or send it by POST from '
	. 'a page of this site, or with the header "X-Upstream-Control: 1"' . "\n";

# location, method, what is allowed there, and the text
my @methods = (
	(map { [ control => $_, 'GET, POST', 'only GET and POST allowed' ] }
		qw/HEAD PUT DELETE PATCH OPTIONS PROPFIND MKCOL COPY LOCK/),
	(map { [ post => $_, 'POST', 'only POST allowed' ] }
		qw/GET HEAD PUT DELETE PATCH OPTIONS/),
);

# Sec-Fetch-Site, Origin, Host, and whether they pass
my @sites = (
	[ undef, undef, 'localhost', 1 ],
	[ 'none', undef, 'localhost', 1 ],
	[ 'same-origin', undef, 'localhost', 1 ],
	[ 'same-site', undef, 'localhost', 0 ],
	[ 'cross-site', undef, 'localhost', 0 ],
	[ 'Same-Origin', undef, 'localhost', 0 ],
	[ '', undef, 'localhost', 0 ],
	[ undef, 'http://localhost', 'localhost', 1 ],
	[ undef, 'https://localhost', 'localhost', 1 ],
	[ undef, 'http://LOCALHOST', 'localhost', 1 ],
	[ undef, 'http://localhost:80', 'localhost', 1 ],
	[ undef, 'http://localhost:81', 'localhost', 0 ],
	[ undef, 'http://localhost:8181', 'localhost:8181', 1 ],
	[ undef, 'http://localhost', 'localhost:8181', 0 ],
	[ undef, 'http://[::1]:8181', '[::1]:8181', 1 ],
	[ undef, 'http://evil', 'localhost', 0 ],
	[ undef, 'http://localhost.evil', 'localhost', 0 ],
	[ undef, 'null', 'localhost', 0 ],
	[ undef, '', 'localhost', 0 ],
	[ undef, 'localhost', 'localhost', 0 ],
	[ 'same-origin', 'http://evil', 'localhost', 0 ],
	[ 'cross-site', 'http://localhost', 'localhost', 0 ],
);

$t->plan(35 + 2 * @methods + 2 * @sites);

mkdir $t->testdir() . '/pages';
$t->write_file('pages/control.html',
	qq(before <!--#include virtual="/control?$DOWN" --> after));
$t->write_file('pages/status.html',
	'before <!--#include virtual="/status?upstream=u" --> after');
$t->write_file('mirrored.html', 'text');
$t->run();
$t->leak_keys('/status', 8080);

methods();
post_only();
head();
sites();
subrequests();
redirects();

sub peer () { return get_json('/status')->{upstreams}{u}{peers}[0] }

sub up () { http_post("/post?upstream=u&peer=0&up=", '') }

sub methods {
	for my $row (@methods) {
		my ($where, $method, $allow, $text) = @$row;
		my $r = http_request(uri => "/$where?$DOWN", method => $method);

		is_deeply([ $r->status(), $r->header('Allow'), $r->body() ],
			[ 405, $allow, $method eq 'HEAD' ? '' : "$text\n" ],
			"$method /$where");
		is(peer()->{state}, 'up', "$method /$where: nothing was changed");
	}

	# nginx does not let these through.
	is(http_request(uri => "/control?$DOWN", method => 'TRACE')->status(), 405,
		'TRACE');
	isnt(http_request(uri => "/control?$DOWN", method => 'GET2')->status(), 200,
		'no method at all');
	is(peer()->{state}, 'up', 'nothing was changed');

	for my $method (qw/GET POST/) {
		is(http_request(uri => "/control?$DOWN", method => $method)->status(),
			200, $method);
		is(peer()->{state}, 'down', "$method changes");
		up();
	}
}

sub post_only {
	is(http_post("/post?$DOWN", '')->status(), 200, 'POST only, by the query');
	is(peer()->{state}, 'down', 'changed');
	is(http_post('/post', 'upstream=u&peer=0&up=', headers => $FORM)->status(),
		200, 'POST only, by a form');
	is(peer()->{state}, 'up', 'changed back');
	is(http_get('/post?upstream=u')->status(), 405, 'not even a listing');
}

# The reply to HEAD has no body, whatever it is: else the next reply on the
# connection would begin in the middle.
sub head {
	my $get = "GET /control?upstream=u&id=0 HTTP/1.1\r\nHost: a\r\n"
		. "Connection: close\r\n\r\n";

	for my $where ("/control?$DOWN", '/status', '/status?upstream=nope') {
		my $raw = http("HEAD $where HTTP/1.1\r\nHost: a\r\n\r\n$get");
		like($raw, qr/\AHTTP\/1.1 \d+ [^{]*?\r\n\r\nHTTP\/1.1 200 [^{]*# id=0\n\z/s,
			"HEAD $where");
	}

	my $r = http_head('/control?upstream=u&peer=0&weight=7&format=json');
	is($r->header('Content-Type'), 'application/json',
		'HEAD: headers as for the body');
	is(peer()->{weight}, 1, 'nothing was changed');
}

sub sites {
	for my $row (@sites) {
		my ($site, $origin, $host, $passes) = @$row;
		my %headers = (Host => $host);
		$headers{'Sec-Fetch-Site'} = $site if defined $site;
		$headers{Origin} = $origin if defined $origin;
		my $name = join ', ', map { "$_: $headers{$_}" } sort keys %headers;

		for my $method (qw/GET POST/) {
			my $r = http_request(uri => "/control?$DOWN", method => $method,
				headers => \%headers);
			is_deeply([ $r->status(), peer()->{state}, $r->body() =~ s/server.*//sr ],
				$passes ? [ 200, 'down', '' ]
				: [ 403, 'up', $CROSS_SITE ],
				"$method: $name");
			up();
		}
	}

	# What the browser asks before a page of another site may send such a header.
	my $r = http_request(uri => "/control?$DOWN", method => 'OPTIONS', headers => {
		Origin => 'http://evil', 'Access-Control-Request-Method' => 'POST',
		'Access-Control-Request-Headers' => 'x-upstream-control' });
	is($r->status(), 405, 'preflight');
	is_deeply([ grep { /\Aaccess-control-/i } keys %{ $r->headers() } ], [],
		'and no word of permission');
	$r = http_post("/control?$DOWN", '', headers => { Origin => 'http://localhost' });
	is_deeply([ grep { /\Aaccess-control-/i } keys %{ $r->headers() } ], [],
		'nor where the request passes');
	up();

	is(http_get('/control?upstream=u', headers => { Origin => 'http://evil' })
		->status(), 403, 'nor is a listing given away');
	is(http_get("/control?$DOWN", host => '::1',
		headers => { Host => '[::1]', Origin => 'http://[::1]' })->status(), 200,
		'IPv6');
	up();
}

# nginx makes these itself, in the name of requests that ask for something else.
sub subrequests {
	my $revision = get_json('/status')->{upstreams}{u}{revision};
	my $mark = $t->log_mark();

	is(http_get("/mirrored.html?$DOWN")->status(), 200, 'mirrored');
	ok($t->find_in_log(qr/refused with 405: subrequests are not allowed/, 5,
		$mark), 'the mirrored one is refused');

	is(http_get('/pages/control.html')->body(),
		"before subrequests are not allowed\n after", 'included');
	is(http_get("/auth?$DOWN")->status(), 500, 'asked for permission');
	like(http_get('/pages/status.html')->body(),
		qr/\Abefore \{"upstreams":\{"u":.* after\z/s, 'reading is allowed');

	is(peer()->{state}, 'up', 'nothing was changed');
	is(get_json('/status')->{upstreams}{u}{revision}, $revision,
		'nor counted');
}

# A redirect inside nginx is the client's own request still.
sub redirects {
	is(http_get("/moved?$DOWN")->status(), 200, 'rewritten');
	is(peer()->{state}, 'down', 'changed');
	up();
	is(http_get('/error')->status(), 200, 'by error_page');
	is(peer()->{state}, 'draining', 'changed');
	up();
	is(http_head("/moved?$DOWN")->status(), 405, 'HEAD, rewritten');
	is(peer()->{state}, 'up', 'not changed');
}
