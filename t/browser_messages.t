#!/usr/bin/env perl

# Tests for what the page of upstream_status says: that it claims no success
# which is none, that nothing moves when messages come and go, and that words
# of others turn nothing around.

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
	->has(qw/module http rewrite upstream_zone/)
	->plan(16);

$t->write_file_expand('nginx.conf', <<'CONF');
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

    server {
        listen 127.0.0.1:8080;

        location /status {
            upstream_status control=/control;
        }

        location /control {
            upstream_control methods=POST;
        }

        location /liar-html {
            upstream_status control=/say-html;
        }

        location /liar-json {
            upstream_status control=/say-json;
        }

        location /liar-other {
            upstream_status control=/say-other;
        }

        location /say-html {
            return 200 "<html>sign in</html>";
        }

        location /say-json {
            return 200 '{"upstream":"backend"}';
        }

        location /say-other {
            return 200 '{"upstream":"other","revision":1}';
        }
    }
}
CONF

$t->run();
$t->leak_keys('/status', 8080);

my $base = 'http://127.0.0.1:' . port(8080);
my $browser = Test::Nginx::Browser->start($t);

lied_to();
still();
turned();
left();

is_deeply([ $browser->console() ], [], 'the browser has no complaint');
$browser->stop();

sub visit ($uri) {
	$browser->open("$base$uri");
	$t->wait_for(sub { $browser->text('#age-text') =~ / ago\z/ }, 10,
		"$uri has data");
}

sub action ($verb, $n) {
	return qq{button[aria-label="$verb 127.0.0.1:@{[ port($n) ]} of backend"]};
}

sub row ($n) { return 'tr:has(' . action('Down', $n) . ')' }

sub becomes ($n, $wanted) {
	return $t->wait_for(sub {
		($browser->attribute(row($n), 'data-state') // '') eq $wanted;
	}, 10, "$n is $wanted on the page");
}

sub closed () {
	return $t->wait_for(sub {
		!$browser->run('return document.querySelector("#ask").open')
	}, 10, 'the dialog is closed');
}

# Success is what the module says, not what any server answers with 200.
sub lied_to {
	for my $liar (qw/html json other/) {
		visit("/liar-$liar");
		$browser->click(action('Down', 8081));
		$browser->click('#ask-go');
		$t->wait_for(sub { $browser->text('#ask-error') ne '' }, 10, 'an answer');
		like($browser->text('#ask-error'),
			qr{\ASomething else than the module answered at /say-$liar \(200\): it is not known},
			"$liar: no success");
		is($browser->text('#said') // '', '', "$liar: none is claimed");
		$browser->click('#ask-cancel');
		closed();
	}
}

# Nothing under the pointer moves when a message comes or goes.
sub still {
	visit('/liar-json');
	my $place = sub ($css) {
		return $browser->run('const it = document.querySelector(arguments[0])'
			. '.getBoundingClientRect(); return [it.x, it.y, it.width, it.height].join(" ")',
			$css);
	};
	my $row = $place->(row(8083));
	$browser->run('say("A message.")');
	is($place->(row(8083)), $row, 'a message moves no row');
	$browser->run('feed.set("bad", "gone")');
	is($place->(row(8083)), $row, 'nor does a problem');
	$browser->run('say(""); feed.set("good", "")');
	is($place->(row(8083)), $row, 'nor that it goes');

	$browser->click(action('Down', 8081));
	my @before = map { $place->($_) } '#ask-go', '#ask-cancel';
	$browser->click('#ask-go');
	$t->wait_for(sub { $browser->text('#ask-error') ne '' }, 10, 'an answer');
	is_deeply([ map { $place->($_) } '#ask-go', '#ask-cancel' ], \@before,
		'a refusal moves no button');
	$browser->run('ask.askForForce("the guard"); ask.busy(true)');
	is_deeply([ map { $place->($_) } '#ask-go', '#ask-cancel' ], \@before,
		'nor does a word that is asked for');
	$browser->run('ask.busy(false)');
	$browser->click('#ask-cancel');
	closed();
}

# Text of others turns nothing around but itself.
sub turned {
	visit('/status');
	http_post('/control', "upstream=backend&id=2&weight=1&down=&note=a%E2%80%AEgnp"
		. '%E2%81%A6%E2%80%8F', headers => {
		'Content-Type' => 'application/x-www-form-urlencoded' });
	becomes(8083, 'down');
	like($browser->text(row(8083)), qr/a\\u202egnp\\u2066\\u200f/,
		'a sign that turns the direction is shown as an escape');
	$browser->click(action('Up', 8083));
	is($browser->run(<<'JS'), 0, 'and is nowhere in the page');
const turns = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/;
return [...document.querySelectorAll("body *")].filter((node) =>
    [...node.attributes].some((it) => turns.test(it.value))
    || node.tagName !== "SCRIPT" && [...node.childNodes].some((it) => it.nodeType === 3 && turns.test(it.data))).length
JS
	is($browser->run('return [...document.querySelectorAll('
		. '".name, .address, .second, #ask-title, #ask-remains, #said, #problem")]'
		. '.filter((it) => getComputedStyle(it).unicodeBidi !== "isolate").length'), 0,
		'words of others are isolated');
	$browser->click('#ask-go');
	closed();
	becomes(8083, 'up');
}

# A dialog whose server others took down, so that its button is gone.
sub left {
	visit('/status');
	$browser->run('document.querySelector(arguments[0]).focus()',
		action('Down', 8082));
	$browser->press('Enter');
	http_post('/control', 'upstream=backend&id=1&down=', headers => {
		'Content-Type' => 'application/x-www-form-urlencoded' });
	becomes(8082, 'down');
	$browser->click('#ask-cancel');
	closed();
	is($browser->run('return document.activeElement.textContent'), 'Up',
		'the focus goes to what is offered now');
}
