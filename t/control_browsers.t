#!/usr/bin/env perl

# Tests for the requests of browsers to upstream_control: which page may have
# made a browser send them, and by the name of which host.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()
	->has(qw/module http rewrite upstream_zone unix ipv6/);

# The servers at each port: their names, and what they name besides.
my %PORTS = (
	nameless => 8080, named => 8081, first => 8082, second => 8082,
	named_here => 8083,
);

$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream u {
        zone u_zone 64k;
        server 127.0.0.1:8091;
        server 127.0.0.1:8092;
    }

    # No name: any host, with a notice.
    server {
        listen 127.0.0.1:8080;
        listen [::1]:8080;

        location /control { upstream_control; }
        location /more    { upstream_control methods=POST; }
        location /conf    { upstream_conf; }
        location /resty/  { upstream_control; }
        location /status  { upstream_status; }

        location /block {
            upstream_control;
            limit_except GET { allow all; }
        }
    }

    # The only server of its address: nginx itself does not compare names.
    server {
        listen 127.0.0.1:8081;
        server_name lb.example *.wild.example .both.example www.tail.*
                    ~^re[0-9]+\.Example$ "";

        location /control { upstream_control; }
        location /conf    { upstream_conf; }
        location /resty/  { upstream_control; }
        location /block {
            upstream_control;
            if ($http_user_agent) { set $x 1; }
        }
    }

    # Several at one address: a host that none has is given to the first.
    server {
        listen 127.0.0.1:8082;
        server_name first.example _;
        location /control { upstream_control; }
    }
    server {
        listen 127.0.0.1:8082;
        server_name second.example;
        upstream_control_host alias.example;
        location /control { upstream_control; }
        location / { return 200 "second"; }
    }

    # Named by the directive alone.
    server {
        listen 127.0.0.1:8083;
        upstream_control_host a.example *.b.example;
        upstream_control_host C.Example.;

        location /control { upstream_control; }
        location /other {
            upstream_control;
            upstream_control_host d.example;
        }
        location /outer {
            upstream_control_host e.example;
            location /outer/inner { upstream_control; }
        }
        location /before {
            upstream_control_host f.example;
            upstream_control;
        }
    }
}
CONF

my $DOWN = 'upstream=u&id=0&down=';
my $FIREFOX = 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0';
my $OPERA = 'Opera/9.80 (Windows NT 6.1) Presto/2.12.388 Version/12.18';
my $WINDOWS = 'Mozilla/5.0 (Windows NT; Windows NT 10.0; en-US) WindowsPowerShell/5.1.19041.1';
my $LINUX = 'Mozilla/5.0 (Linux; Debian GNU/Linux 12; en-US) PowerShell/7.4.1';

# Headers beside Host, which is localhost:8080, and whether the request passes.
my @headers = (
	# Programs
	[ 1 ],
	[ 1, 'User-Agent' => 'curl/8.5.0' ],
	[ 1, 'User-Agent' => 'curl/8.5.0', Referer => 'http://evil/' ],
	[ 1, 'User-Agent' => 'Go-http-client/1.1', Cookie => 'a=b' ],
	[ 1, 'User-Agent' => $WINDOWS ],
	[ 1, 'User-Agent' => $LINUX ],
	[ 1, 'User-Agent' => $LINUX, 'Sec-Fetch-Mode' => 'navigate',
		'Accept-Language' => 'en', 'Upgrade-Insecure-Requests' => 1 ],
	# Browsers that say nothing of the page: plain HTTP, an image
	[ 0, 'User-Agent' => $FIREFOX ],
	[ 0, 'User-Agent' => $OPERA ],
	[ 0, 'User-Agent' => $FIREFOX, Accept => 'image/png',
		'Sec-Fetch-Mode' => 'no-cors', 'X-Requested-With' => 'XMLHttpRequest' ],
	[ 0, 'Sec-Fetch-Site' => 'cross-site' ],
	[ 0, 'User-Agent' => $WINDOWS, Origin => 'http://evil' ],
	[ 0, 'User-Agent' => 'curl/8.5.0', 'Sec-Fetch-Site' => 'same-site' ],
	# and that do
	[ 1, 'User-Agent' => $FIREFOX, 'Sec-Fetch-Site' => 'none' ],
	[ 1, 'User-Agent' => $FIREFOX, 'Sec-Fetch-Site' => 'same-origin' ],
	[ 1, 'User-Agent' => $FIREFOX, 'Sec-Fetch-Site' => 'same-origin',
		Origin => 'http://localhost:8080' ],
	[ 0, 'User-Agent' => $FIREFOX, 'Sec-Fetch-Site' => 'same-origin',
		Origin => 'null' ],
	[ 0, 'User-Agent' => $FIREFOX, 'Sec-Fetch-Site' => 'cross-site',
		Referer => 'http://localhost:8080/status' ],
	[ 1, 'User-Agent' => $FIREFOX, Origin => 'http://localhost:8080' ],
	[ 1, 'User-Agent' => $FIREFOX, Origin => 'https://LOCALHOST:8080' ],
	[ 0, 'User-Agent' => $FIREFOX, Origin => 'http://localhost' ],
	[ 0, 'User-Agent' => $FIREFOX, Origin => 'null' ],
	[ 0, 'User-Agent' => $FIREFOX, Origin => 'null',
		Referer => 'http://localhost:8080/' ],
	[ 1, 'User-Agent' => $FIREFOX, Referer => 'http://localhost:8080/status?a#b' ],
	[ 1, 'User-Agent' => $OPERA, Referer => 'http://localhost:8080' ],
	[ 0, 'User-Agent' => $FIREFOX, Referer => 'http://localhost/status' ],
	[ 0, 'User-Agent' => $FIREFOX, Referer => 'http://evil/?http://localhost:8080/' ],
	[ 0, 'User-Agent' => $FIREFOX, Referer => 'http://localhost:8080@evil/' ],
	[ 0, 'User-Agent' => $FIREFOX, Referer => '' ],
	[ 1, 'User-Agent' => $FIREFOX, 'X-Upstream-Control' => 1 ],
	[ 1, 'User-Agent' => $FIREFOX, 'x-upstream-control' => 1, Origin => 'null' ],
	[ 1, 'User-Agent' => $FIREFOX, 'X-Upstream-Control' => 1,
		'Sec-Fetch-Site' => 'cross-site' ],
	[ 0, 'User-Agent' => $FIREFOX, 'X-Upstream-Control' => 0 ],
	[ 0, 'User-Agent' => $FIREFOX, 'X-Upstream-Control' => 'yes' ],
);

# Server, location, host, and whether a browser may ask by it.
my @hosts = (
	(map { [ nameless => '/control', $_, 1 ] } qw/localhost any.example 127.0.0.1/),
	(map { [ named => '/control', $_, 1 ] } qw/lb.example LB.Example lb.example:8081
		lb.example. lb.example.:8081 a.wild.example a.b.wild.example both.example
		x.both.example www.tail.org www.tail.co.uk re1.example RE22.EXAMPLE
		localhost localhost:1 LocalHost localhost. 127.0.0.1 10.0.0.1:8081
		[::1] [::1]:8081 [2001:db8::1]/),
	(map { [ named => '/control', $_, 0 ] } qw/evil.example xlb.example lb.example.evil
		wild.example xboth.example www.tail re.example xre1.example
		localhost.evil.example a.localhost 127.0.0.1.evil.example 127.1/),
	(map { [ named => $_, 'evil.example', 0 ] } qw{/conf /block /resty/pools
		/resty/down_host/u/1}),
	[ named => '/block', 'lb.example', 1 ],
	[ first => '/control', 'first.example', 1 ],
	[ first => '/control', 'evil.example', 0 ],
	# The name that stands for no host.
	[ first => '/control', 'under.example', 0 ],
	[ second => '/control', 'second.example', 1 ],
	# nginx gives it to the first server, which does not know it.
	[ second => '/control', 'alias.example', 0 ],
	(map { [ named_here => '/control', $_, 1 ] } qw/a.example x.b.example c.example
		127.0.0.1 localhost/),
	(map { [ named_here => '/control', $_, 0 ] } qw/b.example d.example evil.example/),
	[ named_here => '/other', 'd.example', 1 ],
	[ named_here => '/other', 'a.example', 0 ],
	[ named_here => '/outer/inner', 'e.example', 1 ],
	[ named_here => '/outer/inner', 'a.example', 0 ],
	[ named_here => '/before', 'f.example', 1 ],
	[ named_here => '/before', 'evil.example', 0 ],
);

# What is wrong in a configuration.
my @bad = map { [ "upstream_control_host $_->[0];", $_->[1] ] } (
	[ '', qr/invalid number of arguments in "upstream_control_host"/ ],
	[ '""', qr/invalid host ""/ ],
	[ '*', qr/invalid host "\*": it must be a host name, or one like "\*\.example\.com"/ ],
	[ 'a b:80', qr/invalid host "b:80": it must be without scheme, port and path/ ],
	[ 'http://a', qr{invalid host "http://a": it must be without scheme} ],
	[ '~^a', qr/invalid host "~\^a": regular expressions are for "server_name"/ ],
);

$t->plan(2 * @headers + 2 * @hosts + @bad + 8);

$t->run();
$t->leak_keys('/status', 8080);

headers();
hosts();
words();
notices();
configurations();

sub admin () { return get_json('/status')->{upstreams}{u}{peers}[0]{state} }

sub up () { http_get('/control?upstream=u&id=0&up=') }

sub headers {
	for my $row (@headers) {
		my ($passes, %headers) = @$row;
		my $name = join ', ', map { "$_: $headers{$_}" } sort keys %headers;

		for my $method (qw/GET POST/) {
			my $r = http_request(uri => "/control?$DOWN", method => $method,
				headers => { Host => 'localhost:8080', %headers });
			is_deeply([ $r->status(), admin() ],
				$passes ? [ 200, 'down' ] : [ 403, 'up' ],
				"$method, $name");
			up();
		}
	}
}

# Under a name of its own a page may send any header.
sub hosts {
	for my $row (@hosts) {
		my ($server, $uri, $host, $passes) = @$row;
		my %request = (
			uri => $uri =~ /resty/ ? $uri : "$uri?upstream=u",
			port => $PORTS{$server},
		);

		my $r = http_request(%request, headers => { Host => $host,
			'User-Agent' => $FIREFOX, 'X-Upstream-Control' => 1,
			'Sec-Fetch-Site' => 'same-origin' });
		is($r->status(), $passes ? 200 : 403, "$server$uri: $host");
		ok($passes || $r->body() =~ /\Ahost "[^"]*" refused: /, "in words: $host");
	}
}

sub words {
	my %browser = ('User-Agent' => $FIREFOX);
	my $r = http_get("/control?$DOWN", headers => \%browser);
	is($r->told(), '403 cross-site request refused: use curl, or send it by POST from '
		. 'a page of this site, or with the header "X-Upstream-Control: 1"',
		'cross-site');
	$r = http_get("/control?$DOWN", headers => { %browser,
		Accept => 'application/json' });
	is($r->json()->{error}{code}, 'CrossSite', 'in JSON');

	$r = http_get("/control?$DOWN", port => 8081, headers => { %browser,
		Host => 'Evil.example.:8081', 'Sec-Fetch-Site' => 'same-origin' });
	is($r->told(), '403 host "evil.example" refused: name it by "server_name" or '
		. '"upstream_control_host", or use curl', 'the host');
	is(http_get('/control?upstream=u', port => 8081,
		headers => { Host => 'evil.example' })->status(), 200,
		'a program may use any host');
	is(admin(), 'up', 'nothing was changed');
}

# One for the server that has no name, however many locations it has.
sub notices {
	my @lines = $t->grep_log(qr/browsers may send changes by any host name/);
	is(scalar @lines, 1, 'one notice');
	like($lines[0] // '', qr/\[notice\].*since the server in \S+nginx\.conf:\d+ has no "server_name": name its hosts there or by "upstream_control_host"/,
		'of the server');
	my ($line) = ($lines[0] // '') =~ /nginx\.conf:(\d+)/;
	like((split /\n/, $t->read_file('nginx.conf'))[($line // 1) - 1], qr/server \{/,
		'by the line where it begins');
}

sub configurations {
	for my $row (@bad) {
		my ($directive, $wanted) = @$row;
		my (undef, $out) = $t->test_config(<<"CONF");
%%TEST_GLOBALS%%
events { }
http {
    %%TEST_GLOBALS_HTTP%%
    $directive
}
CONF
		like($out, $wanted, $directive);
	}
}
