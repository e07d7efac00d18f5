#!/usr/bin/env perl

# Tests for the user in the reason of a change and in its log line: the one whose
# password nginx has checked, and no other.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use MIME::Base64 qw/encode_base64/;
use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()
	->has(qw/module http rewrite map access auth_basic upstream_zone/);

my $lua = $t->has_module_built('lua');
my $script = $lua ? <<'CONF' : '';
        location /script {
            auth_basic "upstreams";
            content_by_lua_block {
                local control = require "ngx.upstream_control"
                if ngx.var.arg_set then
                    return ngx.say(control.drain("u", 0).changed)
                end
                ngx.say(control.status("u").servers[1].reason.user or "nobody")
            }
        }
CONF

$t->write_file_expand('nginx.conf', <<'CONF', SCRIPT => $script,
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%
    %%LUA_PATH%%

    map $arg_note $realm {
        default upstreams;
        open    off;
    }

    upstream u {
        zone u_zone 64k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
    }

    upstream app {
        pool u;
    }

    server {
        listen 127.0.0.1:8080;
        auth_basic_user_file users;

        location /status { upstream_status; }

        # A password is checked,
        location /checked {
            auth_basic "upstreams";
            upstream_control;

            location /checked/inner {
                upstream_control;
            }
        }
        location /conf {
            auth_basic "upstreams";
            upstream_conf;
        }
        location /resty/ {
            auth_basic "upstreams";
            upstream_control;
        }
        location /realm {
            auth_basic $realm;
            upstream_control;
        }
        location /all {
            satisfy all;
            allow all;
            auth_basic "upstreams";
            upstream_control;
        }
        location /block {
            auth_basic "upstreams";
            upstream_control;
            if ($arg_note) { set $x 1; }
        }
        location /limited {
            upstream_control;
            limit_except POST { auth_basic "upstreams"; }
        }
        location /moved {
            rewrite ^ /checked last;
        }

        # and here none is.
        location /open {
            upstream_control;
        }
        location /off {
            auth_basic off;
            upstream_control;
        }
        location /read {
            set $x $remote_user;
            upstream_control;
        }
        location /any {
            satisfy any;
            allow 127.0.0.1;
            deny all;
            auth_basic "upstreams";
            upstream_control;
        }
        location /leads {
            auth_basic "upstreams";
            error_page 404 = /open?$args;
            try_files /nothing =404;
        }

%%SCRIPT%%
    }

    server {
        listen 127.0.0.1:8083;
        auth_basic "a realm, and no file";
        location /control { upstream_control; }
    }
}
CONF
	LUA_PATH => $lua ? "lua_package_path '$FindBin::Bin/../lualib/?.lua;;';" : '');

my $LONG = 'u' x 80;
my $ODD = 'a "b\\';
$t->write_file('users', join '', map { "$_:{PLAIN}secret\n" } 'alice', 'bob', $LONG, $ODD);

# Location, and whether the user is kept.
my @locations = (
	(map { [ $_, 'alice' ] } qw{/checked /checked/inner /conf /realm /all /block
		/limited /moved}),
	(map { [ $_, undef ] } qw{/open /off /read /any /leads}),
);

$t->plan(2 * @locations + 25);
$t->run();
$t->leak_keys('/status', 8080);

locations();
forms();
shown();
words();
unchecked();
scripts();

sub as ($user, $password = 'secret') {
	return (Authorization => 'Basic ' . encode_base64("$user:$password", ''));
}

sub reason ($at = 0) {
	return get_json('/status')->{upstreams}{u}{peers}[$at]{reason} // {};
}

# The user of the last change in the log.
sub logged ($mark) {
	my $line = $t->find_in_log(qr/\[notice\].* server "[^"]+": state/, 5, $mark) // '';
	return $line =~ /, revision \d+(?:, id \d+)?, user: "((?:[^"\\]|\\.)*)", (?:note|client): / ? $1 : undef;
}

sub locations {
	for my $row (@locations) {
		my ($uri, $user) = @$row;
		my $mark = $t->log_mark();
		http_get("$uri?upstream=u&id=0&drain=&note=n" . ++(state $n),
			headers => { as('alice') });
		my $reason = reason();
		is_deeply([ @$reason{qw/user client note/} ], [ $user, '127.0.0.1', "n$n" ],
			"$uri: reason");
		is(logged($mark), $user, "$uri: log");
	}
}

sub forms {
	my %requests = (
		eblb => [ '/checked?stream=u&peer=0&down=true' ],
		everywhere => [ '/checked?upstream=*&server=127.0.0.1:8081&down=' ],
		form => [ '/checked', 'upstream=u&peer=0&down=',
			'Content-Type' => 'application/x-www-form-urlencoded' ],
		replace => [ '/checked?upstream=u&replace=',
			"server 127.0.0.1:8081 down;\nserver 127.0.0.1:8082;\n",
			'Content-Type' => 'text/plain' ],
	);

	for my $name (sort keys %requests) {
		my ($uri, $body, %headers) = @{ $requests{$name} };
		up();
		my $mark = $t->log_mark();
		my $r = http_request(uri => $uri, map_ports => 1,
			defined $body ? (method => 'POST', body => $body) : (),
			headers => { %headers, as('bob') });
		is_deeply([ $r->status(), reason()->{user}, logged($mark) ],
			[ 200, 'bob', 'bob' ], $name);
	}

	up();
	http_get('/resty/down_host/u/1', headers => { as('bob') });
	is(reason()->{user}, 'bob', 'resty');
	my $r = http_get('/checked?upstream=u&id=0&down=&note=again', headers => {
		as('alice'), Accept => 'application/json' });
	is($r->json()->{server}{reason}{user}, 'alice', 'in the reply');
}

sub up () { http_get('/open?upstream=u&id=0&up=') }

sub shown {
	http_get('/checked?upstream=u&id=0&down=&note=shown', headers => { as('alice') });
	is(reason()->{user}, 'alice', 'seen by whichever worker') for 1 .. 4;
	like(http_get('/status?format=text')->body(),
		qr/ client 127\.0\.0\.1, user alice at \S+Z: shown$/m, 'text');
	like(http_get('/status', headers => { Accept => 'text/html' })->body(),
		qr/reason\.user/, 'page');
	ok(!exists reason(1)->{user}, 'the other server has none');
	http_get('/checked?upstream=u&id=0&up=');
	is(reason()->{user}, 'alice', 'refused with 401: nothing was changed');
}

# Names of any length and with any letters.
sub words {
	my $mark = $t->log_mark();
	http_get('/checked?upstream=u&id=0&down=&note=long', headers => { as($LONG) });
	is(reason()->{user}, 'u' x 64, 'a long name is cut');
	is(logged($mark), $LONG, 'not in the log');
	$mark = $t->log_mark();
	http_get('/checked?upstream=u&id=0&down=&note=odd', headers => { as($ODD) });
	is(reason()->{user}, $ODD, 'any letters');
	is(logged($mark), 'a \\"b\\\\', 'which cannot end early');
}

sub unchecked {
	is(http_get('/checked?upstream=u&id=0&up=', headers => { as('alice', 'wrong') })
		->status(), 401, 'a wrong password');
	is(http_get('/any?upstream=u&id=0&drain=', headers => { as('alice', 'wrong') })
		->status(), 200, 'a wrong password where the address is enough');
	is(reason()->{user}, undef, 'nobody');
	http_get('/realm?upstream=u&id=0&down=&note=open', headers => { as('alice') });
	is(reason()->{user}, undef, 'a realm that is off');
	http_get('/control?upstream=u&id=0&down=&note=none', port => 8083,
		headers => { as('alice') });
	is_deeply([ @{ reason() }{qw/user note/} ], [ undef, 'none' ],
		'a realm without a file of users');
}

sub scripts {
	SKIP: {
		skip('nginx without Lua', 2) if !$lua;

		http_get('/checked?upstream=u&id=0&down=&note=by', headers => { as('alice') });
		is(http_get('/script', headers => { as('alice') })->body(), "alice\n",
			'a script sees the user');
		http_get('/script?set=1', headers => { as('bob') });
		is(http_get('/script', headers => { as('alice') })->body(), "nobody\n",
			'what a script changes has none');
	}
}
