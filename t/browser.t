#!/usr/bin/env perl

# Tests for the page of upstream_status in a browser: what it shows, and that
# clicks on it move the traffic.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;
use Test::Nginx::Browser;

if (my $missing = Test::Nginx::Browser->lacks()) {
	plan(skip_all => "no $missing");
}

my $t = Test::Nginx->new(timeout => 240)
	->has(qw/module http proxy upstream_zone/)
	->plan(68);

# Whether the module knows guards.
my ($no_guard) = $t->test_config(<<'CONF');
%%TEST_GLOBALS%%
events { }
http {
    %%TEST_GLOBALS_HTTP%%
    upstream_guard min=1;
}
CONF

$t->write_file_expand('nginx.conf', <<'CONF', GUARD => $no_guard ? '' : 'upstream_guard min=2;');
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream backend {
        zone backend 64k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8083;
    }

    upstream "<img src=x onerror=document.title=1>" {
        zone "<b>zone</b>" 64k;
        server unix:%%TESTDIR%%/<i>socket</i>;
    }

    upstream static {
        server 127.0.0.1:8081;
        server 127.0.0.1:8082 down;
    }

    upstream guarded {
        zone guarded 64k;
        server 127.0.0.1:8085;
        server 127.0.0.1:8086;
        %%GUARD%%
    }

    server {
        listen 127.0.0.1:8080;

        location /status {
            upstream_status control=/control;
        }

        location /watch {
            upstream_status;
        }

        location /guest {
            upstream_status control=/forbidden;
        }

        location /control {
            upstream_control methods=POST;
        }

        location /forbidden {
            deny all;
            upstream_control;
        }

        location / {
            proxy_pass http://backend;
        }
    }
}
CONF

$t->backend("127.0.0.1:$_") for 8081 .. 8083;
$t->run();
$t->leak_keys('/status', 8080);

my $base = 'http://127.0.0.1:' . port(8080);
my $browser = Test::Nginx::Browser->start($t);

shown();
down();
up();
weight();
last_one();
steady();
chosen();
folded();
hostile();
watched();
forbidden();
membership();
guarded();
unreachable();

$browser->stop();

# === what a person sees and does ===

sub visit ($uri) {
	$browser->open("$base$uri");
	$t->wait_for(sub { $browser->text('#age-text') =~ / ago\z/ }, 10,
		"$uri has data");
}

sub server ($n) { return '127.0.0.1:' . port($n) }

# Buttons are told apart by what they say to those who do not see them: also
# by the upstream.
sub action ($verb, $n, $upstream = $n > 8083 && $n != 8084 ? 'guarded' : 'backend') {
	return qq{button[aria-label="$verb @{[ server($n) ]} of $upstream"]};
}

# The row of a server of `backend`, as a selector.
sub row ($n) {
	return qq{table[aria-label="Servers of backend"] tr:has(} . action('Down', $n)
		. ')';
}

sub becomes ($n, $wanted) {
	return $t->wait_for(sub {
		($browser->attribute(row($n), 'data-state') // '') eq $wanted;
	}, 10, "$n is $wanted on the page");
}

sub dialog_open () { return $browser->run('return document.querySelector("#ask").open') }

sub closed () {
	return $t->wait_for(sub { !dialog_open() }, 10, 'the dialog is closed');
}

# How many of some requests each server takes.
sub traffic ($requests = 12) {
	my %taken;
	$taken{ http_get('/')->body() }++ for 1 .. $requests;
	return \%taken;
}

# === tests ===

sub shown {
	visit('/status');
	is($browser->title(), "Upstreams \x{b7} 127.0.0.1:" . port(8080),
		'title');
	is($browser->text('#totals'), '4 upstreams, 8 servers, 0 active', 'totals');
	like($browser->text('.upstream .head'), qr/backend\s+3 servers\s+\S 3 up/,
		'an upstream');
	like($browser->text(row(8082)), qr/\A1 \Q${\ server(8082) }\E\s+\S\s*up\b/,
		'a server');
	is(scalar($browser->find_all('.upstream')), 4, 'all upstreams');
	is_deeply([ $browser->console() ], [], 'the browser has no complaint');
}

# Clicks and words, then the Enter key for the button that has the focus.
sub down {
	$browser->click(action('Down', 8082));
	ok(dialog_open(), 'asks before it takes a server down');
	like($browser->text('#ask-title'), qr/\ATake \Q${\ server(8082) }\E of backend down\?/,
		'whom');
	is($browser->text('#ask-remains'), '2 of 3 servers stay up.',
		'what would remain');
	$browser->press('Escape');
	closed();
	is_deeply([ sort keys %{ traffic() } ], [qw/8081 8082 8083/],
		'Escape changes nothing');

	# Where a server is taken away, Enter cancels.
	$browser->click(action('Down', 8082));
	is(focused(), 'note', 'the note has the focus');
	$browser->press(split(//, 'disk'), 'Enter');
	closed();
	like($browser->text('#said'), qr/\ACancelled: nothing was changed/,
		'Enter cancels, and says so');
	is_deeply([ sort keys %{ traffic() } ], [qw/8081 8082 8083/],
		'nothing is changed');

	$browser->click(action('Down', 8082));
	$browser->type('#ask input[name=note]', '<b>disk</b> & "more"');
	$browser->click('#ask-go');
	closed();
	ok(becomes(8082, 'down'), 'down');
	is(focused(), 'Up ' . server(8082) . ' of backend',
		'the focus goes to what is offered now');
	is_deeply([ sort keys %{ traffic() } ], [qw/8081 8083/], 'traffic moves');
	like($browser->text(row(8082)), qr/<b>disk<\/b> & "more"/, 'the note is text');
	like($browser->text('#said'), qr/ is down \(revision 1\)/, 'it says so');
}

sub up {
	$browser->click(action('Up', 8082));
	like($browser->text('#ask-remains'), qr/<b>disk<\/b>/,
		'the note is read before the server is brought up');
	$browser->click('#ask-go');
	closed();
	ok(becomes(8082, 'up'), 'up');
	is_deeply([ sort keys %{ traffic() } ], [qw/8081 8082 8083/],
		'traffic is back');
}

sub weight {
	$browser->click(row(8082) . ' td.weight button');
	$browser->type('#ask input[name=weight]', '0');
	$browser->press('Enter');
	like($browser->text('#ask-error'), qr/whole number from 1/, 'no weight 0');
	$browser->type('#ask input[name=weight]', '4');
	$browser->press('Enter');
	closed();
	$t->wait_for(sub { $browser->text(row(8082) . ' td.weight') =~ /\A4/ }, 10,
		'the weight is shown');
	# Four of six, give or take where the others were in their round.
	cmp_ok(traffic()->{8082}, '>=', 7, 'traffic by weight');
}

sub last_one {
	for my $n (8081, 8083) {
		$browser->click(action('Down', $n));
		$browser->click('#ask-go');
		closed();
		ok(becomes($n, 'down'), "$n is down");
	}

	$browser->click(action('Down', 8082));
	is($browser->text('#ask-remains'), '0 of 3 servers stay up.', 'none');
	like($browser->text('#ask-danger'), qr/clients get errors.* type .down/s,
		'in plain words');
	ok($browser->run('return document.querySelector("#ask-go").disabled'),
		'not by a mere click');
	$browser->press('Enter');
	ok(!dialog_open(), 'nor by Enter, which cancels');
	$browser->click(action('Down', 8082));
	$browser->type('#ask-word', 'down');
	ok(!$browser->run('return document.querySelector("#ask-go").disabled'),
		'but with the word');
	$browser->click('#ask-cancel');
	closed();
	is_deeply([ keys %{ traffic(3) } ], ['8082'], 'it was not sent');

	for my $n (8081, 8083) {
		$browser->click(action('Up', $n));
		$browser->click('#ask-go');
		closed();
		becomes($n, 'up');
	}
}

# A refresh writes what has changed, and touches nothing else.
sub steady {
	$browser->run(<<'JS', row(8081));
const row = document.querySelector(arguments[0]);
row.mark = "same";
getSelection().selectAllChildren(row.querySelector(".address"));
row.querySelector(".act.drain").focus();
JS
	my $changes = $browser->run(<<'JS');
window.changes = 0;
new MutationObserver((list) => { window.changes += list.length; })
    .observe(document.querySelector("#upstreams"),
        { subtree: true, childList: true, attributes: true, characterData: true });
window.fetches = 0;
const before = feed.onData;
feed.onData = (...args) => { before(...args); window.fetches += 1; };
JS
	$t->wait_for(sub { $browser->run('return window.fetches') >= 2 }, 15,
		'two refreshes');
	is($browser->run('return window.changes'), 0, 'nothing is written anew');
	# A change elsewhere moves no row either.
	http_post('/control?upstream=backend&id=1&weight=2', '');
	$t->wait_for(sub { $browser->text(row(8082) . ' td.weight') =~ /\A2/ }, 10,
		'the new weight is shown');
	is($browser->run('return document.querySelector(arguments[0]).mark',
		row(8081)), 'same', 'a row stays the same');
	is($browser->run('return getSelection().toString()'), server(8081),
		'so does what is selected');
	is($browser->run('return document.activeElement.getAttribute("aria-label")'),
		'Drain ' . server(8081) . ' of backend', 'and the focus');
}

# What has the focus: its name.
sub focused () {
	return $browser->run('const it = document.activeElement;'
		. 'return it.name || it.getAttribute("aria-label") || it.id');
}

sub found ($wanted) {
	return $t->wait_for(sub { visible() == $wanted }, 5, "$wanted servers are seen");
}

sub visible () {
	return scalar grep { $_ } @{ $browser->run(
		'return [...document.querySelectorAll("tbody tr")]'
		. '.map((row) => row.checkVisibility())') };
}

sub chosen {
	$browser->run('document.activeElement.blur()');
	$browser->press('/');
	is($browser->run('return document.activeElement.id'), 'filter',
		'/ goes to the filter');
	$browser->press(split //, 'backend ' . port(8083));
	ok(found(1), 'filtered by text');
	is($browser->text('#shown'), '1 of 8 servers shown', 'as it says');
	$browser->press('Escape');
	is(visible(), 8, 'Escape clears it');

	$browser->click('.state-filter[data-state=down]');
	is(visible(), 1, 'filtered by state');
	$browser->click('.state-filter[data-state=down]');

	my $column = 'table[aria-label="Servers of backend"] th.weight';
	$browser->click("$column .sort");
	is($browser->attribute($column, 'aria-sort'), 'descending', 'sorted');
	is($browser->text('tbody tr:first-child .address'), server(8082),
		'the largest first');
	$browser->click("$column .sort") for 1, 2;
	is($browser->text('tbody tr:first-child .address'), server(8081),
		'and back to the order of the configuration');
}

sub folded {
	$browser->run('document.querySelector(".toggle").focus()');
	$browser->press('Enter');
	is(visible(), 5, 'Enter folds an upstream');
	visit('/status');
	is(visible(), 5, 'which is remembered');
	is($browser->attribute('.toggle', 'aria-expanded'), 'false', 'and said');
	$browser->click('.toggle');
	is(visible(), 8, 'unfolded');

	my $theme = sub { $browser->attribute('html', 'data-theme') };
	my %seen;
	for (1 .. 3) {
		$browser->press('t');
		$seen{ $theme->() }++;
	}
	is_deeply([ sort keys %seen ], [qw/dark light/], 'light and dark');
}

sub hostile {
	my @names = map { $browser->text($_) } $browser->find_all('h2 .name');
	is($names[1], '<img src=x onerror=document.title=1>', 'a name is text');
	like($browser->text('.upstream:nth-child(2)'), qr{<b>zone</b>.*<i>socket</i>}s,
		'so are a zone and a server');
	is($browser->run('return document.querySelectorAll("img, main b, main i").length'), 0,
		'nothing of it is markup');
	is_deeply([ $browser->console() ], [], 'nor does the browser complain');
}

sub watched {
	visit('/watch');
	is_deeply([ grep { $_ } @{ $browser->run(
		'return [...document.querySelectorAll(".act, .value")]'
		. '.map((node) => node.checkVisibility())') } ], [],
		'nothing to press without a control location');
}

sub forbidden {
	visit('/guest');
	$browser->click(action('Down', 8081));
	$browser->click('#ask-go');
	$t->wait_for(sub { $browser->text('#ask-error') ne '' }, 10, 'an answer');
	is($browser->text('#ask-error'),
		'You may not do that: the server answered 403', 'a refusal in words');
	is((traffic(6)->{8081} // 0) > 0, 1, 'nothing was changed');
	$browser->click('#ask-cancel');
}

# Servers that come and go, where the module can do that with this nginx.
sub membership {
	visit('/status');
	my $bad = http_post('/control?upstream=backend&remove=&server=127.0.0.1:1', '');

	SKIP: {
		skip('servers cannot be added: ' . $bad->body(), 6)
			if $bad->status() == 501;

		$t->backend('127.0.0.1:8084');
		$browser->click('button[aria-label="Add a server to backend"]');
		$browser->type('#ask input[name=server]', server(8084));
		$browser->press('Enter');
		closed();
		ok(becomes(8084, 'up'), 'added');
		cmp_ok(traffic(20)->{8084} // 0, '>', 0, 'takes traffic');
		$browser->click(action('Remove', 8084));
		is(focused(), 'ask-cancel', 'Cancel has the focus where there is no note');
		$browser->click('#ask-go');
		closed();
		$t->wait_for(sub { !$browser->find(row(8084)) }, 10, 'removed');
		ok(!$browser->find(row(8084)), 'removed');
		is(focused(), 'Remove ' . server(8083) . ' of backend',
			'the focus goes to the server that is there now');
		is(traffic(20)->{8084}, undef, 'takes no traffic');
	}

	SKIP: {
		skip('servers can be added', 2) if $bad->status() != 501;

		for my $what ('Add a server to backend', 'Remove ') {
			ok(!$browser->run('return [...document.querySelectorAll('
				. qq{'button[aria-label^="$what"]'} . ')].some((b) => b.checkVisibility())'),
				"not offered: $what");
		}
	}
}

# A guard refuses, and may be set aside by a word.
sub guarded {
	SKIP: {
		skip('no "upstream_guard" in this module', 3) if $no_guard;

		$browser->click(action('Down', 8085));
		$browser->click('#ask-go');
		$t->wait_for(sub { $browser->text('#ask-danger') ne '' }, 10, 'an answer');
		like($browser->text('#ask-danger'),
			qr/\ANot done: guard: 1 usable .* \(409\).* type .force.\./s,
			'the guard refuses, in words');
		$browser->press(split(//, 'force'), 'Enter');
		closed();
		$t->wait_for(sub {
			$browser->text('.upstream:last-child .head') =~ /1 down/;
		}, 10, 'it is down');
		pass('done all the same');
		is(get_json('/status?upstream=guarded')->{upstreams}{guarded}{revision},
			1, 'in one change');
	}
}

sub unreachable {
	$t->stop();
	$t->wait_for(sub { $browser->text('#problem') ne '' }, 15, 'it notices');
	like($browser->text('#problem-text'), qr/the server cannot be reached/,
		'an nginx that is gone');
	like($browser->text('#age-text'), qr/\Alast data \d+ s ago\z/, 'and since when');
}
