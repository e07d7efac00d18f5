#!/usr/bin/env perl

# Tests for the directives: where they may stand, what they take, what nginx
# says to those that are wrong, and that loading the module alone changes
# nothing.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()
	->has(qw/module http proxy upstream_zone/);

my $CONF = <<'CONF';
%%TEST_GLOBALS%%
%%MAIN%%
events { }
http {
    %%TEST_GLOBALS_HTTP%%
    %%HTTP%%

    upstream u {
        %%UPSTREAM%%
        server 127.0.0.1:8081;
    }

    server {
        listen 127.0.0.1:8080;
        %%SERVER%%

        location / {
            %%LOCATION%%
        }
    }
}
CONF

my @HOLES = qw/MAIN HTTP UPSTREAM SERVER LOCATION/;

# hole, what stands there, and the message; without one it is right
my @rows = (
	[ LOCATION => 'upstream_status;' ],
	[ LOCATION => 'upstream_status control=/control;' ],
	[ LOCATION => 'upstream_status on;', qr/invalid parameter "on"/ ],
	[ LOCATION => 'upstream_status control=;',
		qr/invalid control URI "", it must be a path of this site that begins with "\/"/ ],
	[ LOCATION => 'upstream_status control=control;',
		qr/invalid control URI "control", it must be/ ],
	[ LOCATION => 'upstream_status control=//elsewhere/;',
		qr{invalid control URI "//elsewhere/", it must be} ],
	[ LOCATION => 'upstream_status control=/a control=/b;',
		qr/invalid number of arguments in "upstream_status" directive/ ],
	[ HTTP => 'upstream_status;',
		qr/"upstream_status" directive is not allowed here/ ],
	[ SERVER => 'upstream_status;',
		qr/"upstream_status" directive is not allowed here/ ],
	[ UPSTREAM => 'upstream_status;',
		qr/"upstream_status" directive is not allowed here/ ],
	[ LOCATION => 'upstream_status; upstream_status;',
		qr/"upstream_status" directive is duplicate/ ],
	[ LOCATION => 'if ($arg_a) { upstream_status; }',
		qr/"upstream_status" directive is not allowed here/ ],

	[ LOCATION => 'upstream_control;' ],
	[ LOCATION => 'upstream_control methods=POST;' ],
	[ LOCATION => 'location /inner { upstream_control; }' ],
	[ LOCATION => 'limit_except GET { deny all; } upstream_control;' ],
	[ LOCATION => 'upstream_control methods=GET;',
		qr/invalid parameter "methods=GET", it must be "methods=POST"/ ],
	[ LOCATION => 'upstream_control methods=post;',
		qr/invalid parameter "methods=post"/ ],
	[ LOCATION => 'upstream_control methods=;',
		qr/invalid parameter "methods="/ ],
	[ LOCATION => 'upstream_control on;', qr/invalid parameter "on"/ ],
	[ LOCATION => 'upstream_control methods=POST methods=POST;',
		qr/duplicate parameter "methods=POST"/ ],
	[ LOCATION => 'upstream_control upstream=u host_errors=200 methods=POST;' ],
	[ LOCATION => 'upstream_control upstream=nope;',
		qr/upstream_control: no upstream "nope"/ ],
	[ LOCATION => 'upstream_control host_errors=500;',
		qr/invalid parameter "host_errors=500", it must be "host_errors=200"/ ],
	[ LOCATION => 'upstream_control upstream=u upstream=u;',
		qr/duplicate parameter "upstream=u"/ ],
	[ LOCATION => 'upstream_conf upstream=u;',
		qr/invalid parameter "upstream=u"/ ],
	[ HTTP => 'upstream_control;',
		qr/"upstream_control" directive is not allowed here/ ],
	[ SERVER => 'upstream_control;',
		qr/"upstream_control" directive is not allowed here/ ],
	[ LOCATION => 'upstream_control; upstream_control;',
		qr/"upstream_control" directive is duplicate/ ],
	[ LOCATION => 'upstream_status; upstream_control;',
		qr/"upstream_control" directive is .*a second handler of this location/ ],

	[ HTTP => 'upstream_dynamic on;' ],
	[ HTTP => 'upstream_dynamic off;' ],
	[ UPSTREAM => 'upstream_dynamic on; zone u 64k;' ],
	[ UPSTREAM => 'upstream_dynamic off; zone u 64k;' ],
	[ UPSTREAM => 'upstream_dynamic on;' ],
	[ UPSTREAM => 'upstream_dynamic;',
		qr/invalid number of arguments in "upstream_dynamic" directive/ ],
	[ UPSTREAM => 'upstream_dynamic maybe;',
		qr/invalid value "maybe" in "upstream_dynamic" directive, it must be "on" or "off"/ ],
	[ UPSTREAM => 'upstream_dynamic on; upstream_dynamic off;',
		qr/"upstream_dynamic" directive is duplicate/ ],
	[ HTTP => 'upstream_dynamic on; upstream_dynamic on;',
		qr/"upstream_dynamic" directive is duplicate/ ],
	[ SERVER => 'upstream_dynamic on;',
		qr/"upstream_dynamic" directive is not allowed here/ ],
	[ LOCATION => 'upstream_dynamic on;',
		qr/"upstream_dynamic" directive is not allowed here/ ],

	[ HTTP => 'upstream_control_zone 32k;' ],
	[ HTTP => 'upstream_control_zone 2m;' ],
	[ HTTP => 'upstream_control_zone 32768;' ],
	[ HTTP => 'upstream_control_zone 31k;',
		qr/zone size "31k" is too small/ ],
	[ HTTP => 'upstream_control_zone 0;', qr/zone size "0" is too small/ ],
	[ HTTP => 'upstream_control_zone much;', qr/invalid zone size "much"/ ],
	[ HTTP => 'upstream_control_zone -1m;', qr/invalid zone size "-1m"/ ],
	[ HTTP => 'upstream_control_zone 99999999999999999999m;',
		qr/invalid zone size "99999999999999999999m"/ ],
	[ HTTP => 'upstream_control_zone;',
		qr/invalid number of arguments in "upstream_control_zone" directive/ ],
	[ HTTP => 'upstream_control_zone 1m; upstream_control_zone 1m;',
		qr/"upstream_control_zone" directive is duplicate/ ],
	[ UPSTREAM => 'upstream_control_zone 1m;',
		qr/"upstream_control_zone" directive is not allowed here/ ],
	[ MAIN => 'upstream_control_zone 1m;',
		qr/"upstream_control_zone" directive is not allowed here/ ],

	# What nginx says of an upstream is the same with the module.
	[ UPSTREAM => 'zone u 64k; keepalive 4; keepalive 4;',
		qr/"keepalive" directive is duplicate/ ],
	[ HTTP => 'upstream empty { zone empty 64k; }',
		qr/no servers are inside upstream/ ],
);

# Each row is one test, or two with a message; what follows them is counted
# beside it.
$t->plan(20 + @rows + grep { $_->[2] } @rows);

rows();
nothing_to_do();
elsewhere();

sub rows {
	for my $row (@rows) {
		my ($hole, $text, $message) = @$row;
		my ($code, $out) = check($CONF, $hole => $text);

		is($code, $message ? 1 : 0, "$hole: $text") or diag($out);
		like($out, qr/ \[emerg\] .*$message/, "$hole: $text, in words")
			if $message;
	}
}

sub check ($conf, %holes) {
	return $t->test_config($conf, (map { $_ => '' } @HOLES), %holes);
}

# Configurations in which there is nothing for the module.
sub nothing_to_do {
	my @confs = (
		[ 'no http', "%%TEST_GLOBALS%%\nevents { }\n" ],
		[ 'an empty http', "%%TEST_GLOBALS%%\nevents { }\nhttp { }\n" ],
		[ 'no upstream', <<'CONF' ],
%%TEST_GLOBALS%%
events { }
http { %%TEST_GLOBALS_HTTP%% server { listen 127.0.0.1:8080; } }
CONF
		[ 'no location of ours', $CONF ],
		[ 'an upstream that nothing uses', <<'CONF' ],
%%TEST_GLOBALS%%
events { }
http { upstream u { zone u 64k; server 127.0.0.1:8081; } }
CONF
		[ 'an upstream that is not there', <<'CONF', qr/host not found in upstream/ ],
%%TEST_GLOBALS%%
events { }
http { server { location / { proxy_pass http://no-such-host.invalid; } } }
CONF
	);

	for my $row (@confs) {
		my ($name, $conf, $message) = @$row;
		my ($code, $out) = check($conf);
		is($code, $message ? 1 : 0, $name) or diag($out);
		like($out, $message, "$name, in words") if $message;
	}
}

# The handlers where a location can be that is not the obvious one.
sub elsewhere {
	$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%
    upstream_control_zone 64k;

    upstream u {
        zone u 64k;
        server 127.0.0.1:8081;
    }

    # The order of directives does not matter.
    upstream first {
        upstream_dynamic on;
        upstream_capacity 4;
        least_conn;
        keepalive 2;
        server 127.0.0.1:8081;
        zone first 64k;
    }

    upstream last {
        server 127.0.0.1:8081;
        zone last 64k;
        hash $request_id consistent;
        keepalive 2;
        upstream_capacity 4;
        upstream_dynamic on;
    }

    server {
        listen 127.0.0.1:8080;

        location = /exact { upstream_status; }
        location ~ ^/regex/(?<what>\w+)$ { upstream_status; }

        location /outer {
            upstream_status;
            location /outer/inner { }
            location /outer/control { upstream_control methods=POST; }
        }

        location /rewritten { rewrite ^ /exact?format=text last; }
        location /internal { internal; upstream_status; }
        location /denied { deny all; upstream_status; }
        location /limited {
            limit_except GET { deny all; }
            upstream_control;
        }

        location / { error_page 404 = /internal; }
    }
}
CONF
	$t->run();
	$t->leak_keys('/exact', 8080);

	is(http_get($_)->status(), 200, $_) for qw{/exact /regex/x /outer /outer/x};
	is(http_get('/outer/inner')->status(), 404, 'not handed down');
	is(http_get('/outer/control')->status(), 405, 'a location of its own');
	like(http_get('/rewritten')->body(), qr/^upstream "u"/m, 'rewritten');
	is(http_get('/denied')->status(), 403, 'access rules come first');
	is(http_post('/limited', '')->status(), 403, 'limit_except too');
	is(get_json('/nowhere')->{upstreams}{u}{zone}, 'u', 'by error_page');

	my $all = get_json('/exact')->{upstreams};
	is_deeply([ map { $all->{$_}{method} } qw/first last/ ],
		[ 'least_conn', 'hash consistent' ], 'in any order: known');
	is(control("/outer/control?upstream=$_&id=0&weight=2", method => 'POST')
		->status(), 200, "in any order: $_") for qw/first last/;
}
