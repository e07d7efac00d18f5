#!/usr/bin/env perl

# Tests for requests that come to upstream_control by a way inside nginx: those
# that a proxied server sends there change nothing, those that the configuration
# sends there do.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()
	->has(qw/module http proxy rewrite upstream_zone auth_request fastcgi uwsgi
		scgi memcached ipv6/);

my $lua = $t->has_module_built('lua');

# What talks to servers besides proxy_pass, and how it says to whom.
my @KINDS = qw/fastcgi uwsgi scgi memcached/;

my $kinds = join '', map { <<"CONF" } @KINDS;
        location /$_ {
            error_page 502 = /control?\$args;
            set \$memcached_key key;
            ${_}_pass 127.0.0.1:8099;
        }
CONF

my $capture = $lua ? <<'CONF' : '';
        location /captured {
            content_by_lua_block {
                local reply = ngx.location.capture("/control",
                    { args = ngx.var.args, method = ngx.HTTP_POST })
                ngx.status = reply.status
                ngx.print(reply.body)
            }
        }

        location /executed {
            content_by_lua_block { ngx.exec("/control", ngx.var.args) }
        }
CONF

$t->write_file_expand('nginx.conf', <<'CONF', KINDS => $kinds, CAPTURE => $capture);
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream u {
        zone u_zone 64k;
        server 127.0.0.1:8082;
        server 127.0.0.1:8083;
    }

    server {
        listen 127.0.0.1:8080;

        location /control {
            upstream_control;
            allow 127.0.0.1;
            deny all;
        }

        location /conf {
            upstream_conf;
        }

        location /resty/ {
            upstream_control;
        }

        location @control {
            upstream_control;
        }

        location /status {
            upstream_status;
        }

        # The application decides by its replies where requests go.
        location /app {
            proxy_pass http://127.0.0.1:8081;
        }

        location /intercepted {
            proxy_intercept_errors on;
            error_page 503 = /control?$args;
            error_page 502 = @control;
            proxy_pass http://127.0.0.1:8081;
        }

        location /refused {
            error_page 502 = /control?$args;
            proxy_pass http://127.0.0.1:8099;
        }

        location /fallback {
            try_files /nothing @app;
        }

        location @app {
            proxy_pass http://127.0.0.1:8081;
        }

%%KINDS%%
%%CAPTURE%%

        # The configuration decides.
        location /moved {
            rewrite ^ /control last;
        }

        location /tried {
            try_files /nothing /control?$args;
        }

        location /returned {
            error_page 404 = /control?$args;
            return 404;
        }

        location /named {
            error_page 404 = @control;
            return 404;
        }

        location /asked {
            auth_request /permission;
            upstream_control;
        }

        location = /permission {
            internal;
            proxy_pass http://127.0.0.1:8081/yes;
        }
    }
}
CONF

my $DOWN = 'upstream=u&id=0&down=';
my $WORDS = 'the reply of a proxied server led here (X-Accel-Redirect or '
	. 'error_page), which may change nothing';

# Where the application sends a request: the path, and what would change.
my %sent = (
	'/app/down' => "/control?$DOWN",
	'/app/add' => '/control?upstream=u&add=&server=127.0.0.1:8084',
	'/app/list' => '/control?upstream=u',
	'/app/eblb' => '/control?stream=u&peer=0&down=true',
	'/app/replace' => '/control?upstream=u&replace=',
	'/app/all' => '/control?upstream=*&server=127.0.0.1:8082&down=',
	'/app/conf' => "/conf?$DOWN",
	'/app/pools' => '/resty/pools',
	'/app/host' => '/resty/down_host/u/1',
	'/app/named' => '@control',
	'/app/moved' => "/moved?$DOWN",
	'/fallback' => "/control?$DOWN",
);

$t->plan(4 * keys(%sent) + 2 * @KINDS + 29);

$t->backend('127.0.0.1:8081', uris => {
	(map { ($_ => { headers => { 'X-Accel-Redirect' => $sent{$_} } }) } keys %sent),
	'/app/status' => { headers => { 'X-Accel-Redirect' => '/status' } },
	'/intercepted/503' => { status => 503 },
	'/intercepted/502' => { status => 502 },
	'/yes' => { status => 204, body => '' },
});
$t->run();
$t->leak_keys('/status', 8080);

my $before = servers();

sent_by_a_server();
errors();
kinds();
captured();
sent_by_the_configuration();

sub servers () { return get_json('/status')->{upstreams}{u} }

# A request that must change nothing.
sub refused ($name, $uri, %request) {
	my $r = http_request(uri => $uri, map_ports => 1, %request);
	is($r->status(), 403, "$name: refused");
	is_deeply(servers(), $before, "$name: nothing was changed");
	return $r;
}

sub sent_by_a_server {
	for my $uri (sort keys %sent) {
		for my $method (qw/GET POST/) {
			refused("$method $uri", $uri, method => $method,
				$method eq 'POST' ? (body => $DOWN, headers =>
				{ 'Content-Type' => 'application/x-www-form-urlencoded' }) : ());
		}
	}

	my $mark = $t->log_mark();
	my $r = refused('in words', '/app/down');
	is($r->body(), "$WORDS\n", 'the words');
	ok($t->find_in_log(qr/refused with 403: \Q$WORDS\E/, 5, $mark), 'the log');
	$r = refused('in JSON', '/app/down',
		headers => { Accept => 'application/json' });
	is_deeply($r->json(), { error => { status => 403, text => $WORDS,
		code => 'ProxiedReply' } }, 'the JSON');
	is(http_head('/app/down')->status(), 403, 'HEAD');
	is(http_get('/app/status')->status(), 200, 'a status may be shown');
	# The next request on the same connection is another one.
	like(http("GET /app/down HTTP/1.1\r\nHost: a\r\n\r\nGET /control?upstream=u "
		. "HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
		qr/\AHTTP\/1.1 403 .*HTTP\/1.1 200 /s, 'the next request');
}

# Errors of a server, and the lack of one.
sub errors {
	refused('503 of a server', "/intercepted/503?$DOWN");
	refused('502 of a server, named', "/intercepted/502?$DOWN");
	refused('a server that is not there', "/refused?$DOWN");
	refused('the same by POST', "/refused?$DOWN", method => 'POST', body => '');
	refused('with words of a program', "/refused?$DOWN",
		headers => { 'X-Upstream-Control' => 1 });
}

sub kinds {
	refused($_, "/$_?$DOWN") for @KINDS;
}

# By a script, for itself and for the client.
sub captured {
	SKIP: {
		skip('nginx without Lua', 4) if !$lua;

		my $r = http_get("/captured?$DOWN");
		is($r->status(), 405, 'captured');
		is($r->body(), "subrequests are not allowed\n", 'in words');
		is_deeply(servers(), $before, 'nothing was changed');
		changes('executed');
	}
}

sub changes ($where) {
	http_get("/$where?$DOWN");
	is(servers()->{peers}[0]{state}, 'down', "$where: changed");
	http_get('/control?upstream=u&id=0&up=');
	$before = servers();
}

sub sent_by_the_configuration {
	changes($_) for qw/moved tried returned named asked/;
}
