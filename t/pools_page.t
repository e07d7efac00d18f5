#!/usr/bin/env perl

# Tests for pools as people see them: in the status, as JSON and as text, and on
# the page, which says which pool is active, and why not the better one.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP ();
use Test::More;

use Test::Nginx;
use Test::Nginx::Browser;

if (my $missing = Test::Nginx::Browser->lacks()) {
	plan(skip_all => "no $missing");
}

my $t = Test::Nginx->new(timeout => 120)
	->has(qw/module http proxy upstream_zone/)
	->plan(31);

$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream app {
        pool primary failback=1h;
        pool "<b>dr</b>" priority=10;
    }

    upstream primary {
        zone primary 64k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
    }

    upstream "<b>dr</b>" {
        zone dr 64k;
        server 127.0.0.1:8083;
    }

    server {
        listen 127.0.0.1:8080;
        location /status { upstream_status control=/control; }
        location /control { upstream_control; }
        location / { proxy_pass http://app; }
    }
}
CONF

$t->backend("127.0.0.1:$_") for 8081 .. 8083;
$t->run();
$t->leak_keys('/status', 8080);

my $base = 'http://127.0.0.1:' . port(8080);
my $browser = Test::Nginx::Browser->start($t);

best();
worse();
waiting();
none();
links();

is_deeply([ $browser->console() ], [], 'the browser has no complaint');
$browser->stop();

sub app () { return get_json('/status?upstream=app')->{upstreams}{app} }

sub text () {
	return http_get('/status?upstream=app&format=text')->body();
}

# What the page says of the pools, one after the other.
sub pools () { return map { $browser->text($_) } $browser->find_all('.pools li') }

sub all ($state) {
	my $r = http_get('/control?upstream=primary&servers='
		. join(',', map { '127.0.0.1:' . port($_) } 8081, 8082) . "&$state=");
	die $r->body() if $r->status() != 200;
}

sub shows ($re, $what) {
	ok($t->wait_for(sub { join('|', pools()) =~ $re }, 10, $what),
		"page: $what") or diag(join '|', pools());
}

sub best {
	my $app = app();
	my $since = delete $app->{since};
	like($since, qr/\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\z/, 'JSON: since when');
	is_deeply($app, {
		zone => undef, method => 'pools', dynamic => JSON::PP::false,
		reason => 'it has pools, whose servers can be changed', revision => 0,
		pools => [
			{ pool => 'primary', priority => 0, failback => '3600s',
				state => 'active' },
			{ pool => '<b>dr</b>', priority => 10, failback => '0s',
				state => 'standby' },
		],
		active => 'primary', peers => [],
	}, 'JSON: all of it');
	is(text(), qq{upstream "app": pools, "primary" active since $since\n}
		. qq{  pool "primary": priority 0, failback 3600s, active\n}
		. qq{  pool "<b>dr</b>": priority 10, failback 0s, standby\n}, 'text');
	is_deeply([ sort keys get_json('/status')->{upstreams}->%* ],
		[ '<b>dr</b>', qw/app primary/ ], 'JSON: beside the pools themselves');
	unlike(http_get('/status')->body(), qr/0\.0\.0\.0|placeholder/i,
		'no placeholder is shown');

	$browser->open("$base/status");
	shows(qr/\A\S\s*active\s+primary\s+for \d+ s\s+priority 0, failback 3600s\|/,
		'the best pool');
	like((pools())[1], qr/\A\S\s*standby\s+<b>dr<\/b>\s+priority 10\z/,
		'page: a name is text');
	is($browser->run('return document.querySelectorAll("main b").length'), 0,
		'page: and no markup');
	my $head = $browser->text('.upstream .head');
	like($head, qr/app\s+2 pools\s+primary active for \d+ s/, 'page: the head');
	unlike($head, qr/no zone|static|Add server/, 'page: and nothing else');
	is($browser->attribute('.upstream', 'data-worst'), 'up', 'page: all is well');
	is($browser->run('return [...document.querySelector(".upstream")'
		. '.querySelectorAll("table, .empty")].filter((it) => it.checkVisibility())'
		. '.length'), 0, 'page: no table of servers');
	is($browser->text('#totals'), '3 upstreams, 3 servers, 0 active',
		'page: totals count servers, not pools');
}

sub worse {
	all('down');
	my $app = app();
	is($app->{active}, '<b>dr</b>', 'worse: JSON');
	is($app->{pools}[0]{state}, 'unavail', 'worse: state of the better');
	like($app->{pools}[0]{why}, qr/\Ano usable server: 2 down, 0 unavailable/,
		'worse: why not the better');
	shows(qr/unavail\s+primary\s.*no usable server: 2 down.*\|.*active\s+<b>dr/s,
		'why not the better');
	is($browser->attribute('.upstream', 'data-worst'), 'some',
		'page: not the best');
}

sub waiting {
	all('up');
	my $better = app()->{pools}[0];
	is($better->{state}, 'waiting', 'waiting: JSON');
	like($better->{why}, qr/\Ausable, failback in 3(?:600|59\d)s\z/,
		'waiting: for how long');
	like(text(), qr/"primary": .*, waiting, usable, failback in \d+s$/m,
		'waiting: text');
	shows(qr/waiting\s+primary\s.*failback in \d+s/s, 'the better one waits');
}

sub none {
	all('down');
	http_get('/control?upstream=' . '%3Cb%3Edr%3C/b%3E' . '&id=0&down=');
	my $app = app();
	is($app->{active}, undef, 'none: JSON');
	ok(exists $app->{active}, 'none: which says so');
	like(text(), qr/: pools, none active since /, 'none: text');
	$t->wait_for(sub { $browser->text('.upstream .head') =~ /none active for/ },
		10, 'none is active');
	is($browser->attribute('.upstream', 'data-worst'), 'none', 'page: none');
}

# A name leads to the upstream, also if that is folded.
sub links {
	$browser->run('document.activeElement.blur()');
	$browser->press('f');
	is($browser->run('return document.querySelector(".pools").checkVisibility()'),
		JSON::PP::false, 'page: pools fold with their upstream');
	$browser->press('f');
	$browser->click('.upstream:nth-child(2) .toggle');
	$browser->click('.pools li .link');
	is($browser->attribute('.upstream:nth-child(2) .toggle', 'aria-expanded'),
		'true', 'page: a name leads to its upstream');

	$browser->press('/');
	$browser->press(split //, 'primary');
	ok($t->wait_for(sub { scalar(() = $browser->find_all('.upstream')) == 2 }, 5, 'two'),
		'page: found by the name of a pool');
	$browser->press(split //, 'xyz');
	ok($t->wait_for(sub { !$browser->find('.upstream') }, 5, 'none'),
		'page: and not by others');
	$browser->press('Escape');
}
