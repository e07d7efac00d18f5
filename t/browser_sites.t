#!/usr/bin/env perl

# Tests with a browser for who may change anything over plain HTTP, where it says
# nothing of the page that made it send a request unless it must: pages of other
# sites may not, the page of upstream_status may.

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
	->has(qw/module http proxy auth_basic upstream_zone/)
	->plan(35);

$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%
    default_type text/html;

    upstream backend {
        zone backend 64k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
    }

    server {
        listen 127.0.0.1:8080;
        server_name lb.example;

        location /status { upstream_status control=/control; }
        location /control { upstream_control; }
        location /user {
            auth_basic "upstreams";
            auth_basic_user_file users;
            upstream_control;
        }
        # Also for what a name that leads here now got from elsewhere before.
        location /empty { return 200 "<title>empty</title>"; }
    }

    server {
        listen 127.0.0.1:8083;
        location / { return 200 "<title>other</title>"; }
    }
}
CONF

$t->write_file('users', "alice:{PLAIN}secret\n");
$t->run();
$t->leak_keys('/status', 8080);

my $site = 'http://lb.example:' . port(8080);
my $other = 'http://evil.example:' . port(8083);
my $rebound = 'http://evil.example:' . port(8080);
my $local = 'http://127.0.0.1:' . port(8080);
my $DOWN = 'upstream=backend&id=0&down=';

my $browser = Test::Nginx::Browser->start($t);

other_site();
rebound_name();
typed();
own_page();
shown();

$browser->stop();

sub admin () { return get_json('/status')->{upstreams}{backend}{peers}[0]{state} }

# Runs a script in a page, and wants the requests that it sends to arrive and to
# be refused.
sub refused ($name, $words, $script, @args) {
	my $mark = $t->log_mark();
	eval { $browser->run($script, @args); 1 } or diag($@);
	ok($t->find_in_log($words, 10, $mark), "$name: arrives, and is refused");
	is(admin(), 'up', "$name: nothing was changed");
}

sub other_site {
	my $refused = qr/refused with 403: cross-site request refused/;
	my $url = "$site/control?$DOWN";

	# Hosts that lead to the machine itself are told more: this one is not.
	for my $base ($site, $local) {
		my $target = "$base/control?$DOWN";
		$browser->open("$other/");
		is($browser->title(), 'other', "a page of another site for $base");
		refused('image', $refused, <<'JS', $target);
return new Promise((done) => {
    const image = new Image();
    image.onload = image.onerror = () => done();
    image.src = arguments[0];
});
JS
		refused('image that tells no page', $refused, <<'JS', $target);
return new Promise((done) => {
    const image = new Image();
    image.referrerPolicy = "no-referrer";
    image.onload = image.onerror = () => done();
    image.src = arguments[0];
});
JS
		refused('fetch', $refused, <<'JS', $target);
return fetch(arguments[0], { mode: "no-cors" }).then(() => true, () => false);
JS
		refused('fetch by POST', $refused, <<'JS', $target);
return fetch(arguments[0], { method: "POST", mode: "no-cors", body: new URLSearchParams({ a: "b" }) })
    .then(() => true, () => false);
JS
		refused('form', $refused, <<'JS', $target);
const form = document.body.appendChild(document.createElement("form"));
form.method = "POST";
form.action = arguments[0];
form.submit();
JS
	}

	$browser->open("$other/");
	refused('the header', qr/refused with 405: only GET and POST allowed.*"OPTIONS /, <<'JS', $url);
return fetch(arguments[0], { method: "POST", headers: { "X-Upstream-Control": "1" } })
    .then(() => true, () => false);
JS
}

# The browser takes it for the page's own site, and keeps nothing from it.
sub rebound_name {
	my $refused = qr/refused with 403: host "evil\.example" refused/;

	$browser->open("$rebound/empty");
	is($browser->title(), 'empty', 'a page of a name that leads elsewhere now');
	for my $method (qw/GET POST/) {
		refused("$method of a rebound name", $refused, <<'JS', "/control?$DOWN", $method);
return fetch(arguments[0], { method: arguments[1], headers: { "X-Upstream-Control": "1" } })
    .then((reply) => reply.status);
JS
	}
}

# A person at the browser: over plain HTTP it does not say so.
sub typed {
	$browser->open("$site/control?$DOWN");
	is(admin(), 'up', 'typed for a name: refused');
	$browser->open("$local/control?$DOWN");
	is(admin(), 'down', 'typed for this machine: done');
	http_get('/control?upstream=backend&id=0&up=');
}

sub own_page {
	$browser->open("$site/status");
	my $down = qq{button[aria-label="Down 127.0.0.1:@{[ port(8081) ]} of backend"]};
	$t->wait_for(sub { $browser->find($down) }, 10, 'the page has data');
	$browser->click($down);
	$browser->click('#ask-go');
	$t->wait_for(sub { admin() eq 'down' }, 10, 'the page changes');
	is(admin(), 'down', 'the page of this site changes');
	$browser->open("$site/empty");
	# Told apart by Origin, which goes with POST, and by Referer.
	for my $method (qw/POST GET/) {
		is($browser->run(<<'JS', '/control?upstream=backend&id=0&up=', $method), 200, "so does another, by $method");
return fetch(arguments[0], { method: arguments[1] }).then((reply) => reply.status);
JS
	}
}

sub shown {
	http_post("/user?$DOWN", '', headers => { Authorization => 'Basic YWxpY2U6c2VjcmV0' });
	$browser->open("$site/status");
	my $text = sub { $browser->text('tbody tr:first-child') // '' };
	$t->wait_for(sub { $text->() =~ /by alice/ }, 10, 'the user is shown');
	like($text->(), qr/by alice at 127\.0\.0\.1/, 'the user and the address');
}
