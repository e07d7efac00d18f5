#!/usr/bin/env perl

# Tests for the page of upstream_status with ten thousand servers: what is in
# the document is bounded, a key of the filter costs little, and every server
# can be reached.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;
use Test::Nginx::Browser;

if (my $missing = Test::Nginx::Browser->lacks()) {
	plan(skip_all => "no $missing");
}

use constant SERVERS => 10_000;

my $t = Test::Nginx->new(timeout => 240)
	->has(qw/module http upstream_zone/)
	->plan(18);

$t->write_file_expand('nginx.conf', <<'CONF',
%%TEST_GLOBALS%%
worker_processes 1;
events { }
http {
    %%TEST_GLOBALS_HTTP%%
    upstream_control_zone 32m;

    upstream many {
        zone many 64m;
        %%SERVERS%%
    }

    upstream few {
        zone few 64k;
        server 127.0.0.1:8081;
    }

    server {
        listen 127.0.0.1:8080;

        location /status {
            upstream_status control=/control;
        }

        location /control {
            upstream_control;
        }
    }
}
CONF
	SERVERS => join "\n", map {
		'server 10.1.' . int($_ / 250) . '.' . $_ % 250 . ':80;'
	} 0 .. SERVERS - 1);

$t->run();

my $browser = Test::Nginx::Browser->start($t);
$browser->open('http://127.0.0.1:' . port(8080) . '/status');
shown(qr/\A2 upstreams, 10001 servers/, '#totals');

folded();
part();
filtered();
alone();
is_deeply([ $browser->console() ], [], 'the browser has no complaint');
$browser->stop();

sub shown ($re, $css) {
	return $t->wait_for(sub { ($browser->text($css) // '') =~ $re }, 30,
		"$css shows $re");
}

sub rows () { return $browser->run('return document.querySelectorAll("tbody tr").length') }

sub nodes () { return $browser->run('return document.querySelectorAll("*").length') }

sub folded {
	is(rows(), 0, 'folded: no rows');
	cmp_ok(nodes(), '<', 1000, 'folded: few nodes');
}

sub part {
	$browser->click('.upstream:nth-child(1) .toggle');
	ok(shown(qr/\A1\x{2013}200 of 10000 servers/, '.upstream:nth-child(1) .part span'),
		'a part is shown');
	is(rows(), 200, 'part: two hundred rows');
	cmp_ok(nodes(), '<', 10_000, 'part: nodes');

	$browser->click('button[aria-label="Next servers of many"]');
	ok(shown(qr/\A201\x{2013}400 of/, '.upstream:nth-child(1) .part span'), 'the next');
	is($browser->text('tbody tr:first-child .address'), '10.1.0.200:80',
		'next: the servers after them');
	$browser->click('button[aria-label="Previous servers of many"]');
	is($browser->text('tbody tr:first-child .address'), '10.1.0.0:80',
		'and back');

	$browser->click('.upstream:nth-child(2) .toggle');
	ok(shown(qr/\Anone of 1 server: 200 are shown at a time/,
		'.upstream:nth-child(2) .part span'), 'no room for another upstream');
	is(rows(), 200, 'which is said, and not shown');
	$browser->click('.upstream:nth-child(2) .toggle');
}

sub filtered {
	# From the filter as it is: of all keys the first finds most.
	my $cost = $browser->run(<<'JS');
const filter = document.querySelector("#filter");
let least = Infinity;
for (let round = 0; round < 3; round++) {
let longest = 0;
for (const text of ["1", "10", "10.1.3", "10.1.39.249", "", "10.1.39.249:80"]) {
    filter.value = text;
    const began = performance.now();
    refilter();
    document.body.offsetHeight;
    longest = Math.max(longest, performance.now() - began);
}
least = Math.min(least, longest);
}
filter.value = "";
refilter();
return least;
JS
	cmp_ok($cost, '<', 500, 'filter: milliseconds for a key') or diag($cost);

	# Keys that follow each other are one filter.
	my $renders = $browser->run(<<'JS');
window.renders = 0;
const before = render;
render = () => { window.renders += 1; before(); };
feed.pause(true);
const filter = document.querySelector("#filter");
for (const key of "10.1.39.249") {
    filter.value += key;
    filter.dispatchEvent(new Event("input"));
}
return window.renders;
JS
	is($renders, 0, 'filter: not at each key');
	ok(shown(qr/\A1 of 10001 servers shown/, '#shown'), 'filter: found');
	is($browser->text('tbody tr:first-child .address'), '10.1.39.249:80',
		'filter: the last one');
	is($browser->run('return window.renders'), 1, 'filter: once');
	is(rows(), 1, 'filter: and no other');
}

sub alone {
	$browser->press('Escape');
	ok($t->wait_for(sub { rows() == 200 }, 10, 'all'), 'Escape clears it');
}
