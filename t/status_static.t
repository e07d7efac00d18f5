#!/usr/bin/env perl

# Tests for upstreams that cannot be changed at run time: each is shown with
# its reason, serves as if the module were not there, and refuses changes.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP ();
use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()
	->has(qw/module http proxy upstream_zone upstream_hash unix ipv6/)
	->plan(48);

my $CONF = <<'CONF';
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%
    %%HTTP%%

    upstream plain {
        server 127.0.0.1:8081 weight=3 max_conns=4 max_fails=2 fail_timeout=5s;
        server 127.0.0.1:8082 down;
        server [::1]:8083;
        server unix:%%TESTDIR%%/backend.sock backup;
        hash $arg_key;
    }

    upstream off {
        zone off 64k;
        upstream_dynamic off;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082 down;
    }

    upstream on {
        zone on 64k;
        upstream_dynamic on;
        server 127.0.0.1:8081;
        server 127.0.0.1:8084;
    }

    upstream other {
        zone other 64k;
        server 127.0.0.1:8081;
    }

    server {
        listen 127.0.0.1:8080;

        %%CONTROL%%

        location /plain {
            proxy_pass http://plain;
        }

        location /off {
            proxy_pass http://off;
        }

        location /implicit {
            proxy_pass http://127.0.0.1:8084;
        }

        location /again {
            proxy_pass http://127.0.0.1:8084/;
        }
    }
}
CONF

my $NO_ZONE = 'upstream has no "zone": add "upstream_auto_zone 64k;" or '
	. '"zone NAME 64k;"';

my ($yes, $no) = (JSON::PP::true, JSON::PP::false);

$t->backend("127.0.0.1:$_") for 8081, 8084;
$t->backend('[::1]:8083');

$t->write_file_expand('nginx.conf', $CONF, HTTP => '');
$t->run();
$t->leak_keys('/status', 8080);

shown();
text();
served();
control_refuses();
eblb_refuses();
listed();
off_for_all();
advised();

sub status ($args = '') { return get_json("/status?$args")->{upstreams} }

# Without an id: nothing could be done with it.
sub peer ($server, %other) {
	my $name = $t->expand($server);

	return {
		server => $name, name => $name, backup => $no, weight => 1,
		effective_weight => 1, current_weight => 0, state => 'up', active => 0,
		max_conns => 0, fails => 0, max_fails => 1, fail_timeout => '10s',
		down => $no, %other,
	};
}

sub shown {
	my $all = status('verbose=');
	my %down = (state => 'down', down => $yes,
		reason => { by => 'configuration' });

	is_deeply([ sort keys %$all ],
		[ sort qw/plain off on other/, '127.0.0.1:' . port(8084) ],
		'all upstreams, an implicit one once');

	is_deeply($all->{plain}, {
		zone => undef, method => 'hash', dynamic => $no,
		reason => $NO_ZONE, revision => 0, peers => [
			peer('127.0.0.1:8081', weight => 3, effective_weight => 3,
				max_conns => 4, max_fails => 2, fail_timeout => '5s'),
			peer('127.0.0.1:8082', %down),
			peer('[::1]:8083'),
			peer('unix:%%TESTDIR%%/backend.sock', backup => $yes),
		],
	}, 'no zone');

	ok(delete $all->{off}{zone_memory}, 'memory of a zone');
	is_deeply($all->{off}, {
		zone => 'off', method => 'round_robin', dynamic => $no,
		reason => '"upstream_dynamic off" is set', revision => 0,
		peers => [ peer('127.0.0.1:8081'), peer('127.0.0.1:8082', %down) ],
	}, 'upstream_dynamic off');

	# nginx gives the server of such an upstream no weight: it is the only one.
	my $implicit = $all->{ '127.0.0.1:' . port(8084) };
	delete @{ $implicit->{peers}[0] }{qw/weight effective_weight/};
	my $peer = peer('127.0.0.1:8084', max_fails => 0, fail_timeout => '0s');
	delete @$peer{qw/weight effective_weight/};
	is_deeply($implicit, {
		zone => undef, method => 'round_robin', dynamic => $no,
		reason => 'not an "upstream" block', revision => 0,
		peers => [$peer],
	}, 'address in proxy_pass');

	is($all->{on}{dynamic}, $yes, 'upstream_dynamic on');
	is($all->{on}{reason}, undef, 'without a reason');
	is($all->{other}{dynamic}, $yes, 'neither said');
}

sub text {
	my $body = $t->logical(http_get('/status?format=text')->body());

	like($body, qr/^upstream "plain": hash, static: \Q$NO_ZONE\E$/m,
		'no zone, text');
	like($body, qr/^upstream "off": round_robin, zone "off" with \d+ of \d+ pages free, static: "upstream_dynamic off" is set$/m,
		'upstream_dynamic off, text');
	like($body, qr/^upstream "127.0.0.1:8084": round_robin, static: not an "upstream" block$/m,
		'address, text');
	like($body, qr/^  -   127.0.0.1:8081 +127.0.0.1:8081 +up +3 /m, 'no id');
}

sub served {
	is(http_get('/plain')->status(), 200, 'no zone');
	is(http_get('/off')->body(), '8081', 'upstream_dynamic off');
	is(http_get('/implicit')->body(), '8084', 'address');
	is(http_get('/again')->body(), '8084', 'the same address');
	is_deeply(burst(uri => '/off', n => 20)->{by_body}, { 8081 => 20 },
		'the server that is down gets nothing');
}

sub control_refuses {
	my %text = (
		plain => q(only for upstream with 'zone'),
		off => 'upstream is static: "upstream_dynamic off" is set',
		'127.0.0.1:8084' => 'upstream is static: not an "upstream" block',
	);

	for my $name (sort keys %text) {
		for my $args (qw/server=127.0.0.1:8081&down= peer=0&up= id=0&weight=2/) {
			my $r = control("/control?upstream=$name&$args");
			is($r->told(), "501 $text{$name}",
				"$name: $args");
		}
	}

	is_deeply(
		control('/control?upstream=off&peer=0&down=&format=json')->json(),
		{ error => { status => 501, code => 'UpstreamStatic',
			text => $text{off} } }, 'as JSON');
	is(status()->{off}{peers}[0]{state}, 'up', 'nothing was changed');
}

sub eblb_refuses {
	my %text = (
		plain => $NO_ZONE,
		off => '"upstream_dynamic off" is set',
		'127.0.0.1:8084' => 'not an "upstream" block',
	);

	for my $name (sort keys %text) {
		my $r = control("/control?stream=$name&peer=0&down=true");
		is($r->status() . ' ' . $r->body(), "501 down nil $text{$name}\n",
			"EBLB: $name");
	}
}

# Reading is for all of them.
sub listed {
	is(control('/control?upstream=plain')->body(), $t->logical($t->expand(
		<<'TEXT')), 'listing without a zone');
server 127.0.0.1:8081 addr=127.0.0.1:8081;
server 127.0.0.1:8082 addr=127.0.0.1:8082 down;
server [::1]:8083 addr=[::1]:8083;
server unix:%%TESTDIR%%/backend.sock addr=unix:%%TESTDIR%%/backend.sock backup;
TEXT
	is(control('/control?upstream=off&verbose=')->body(), <<'TEXT',
server 127.0.0.1:8081 addr=127.0.0.1:8081 weight=1 max_fails=1 fail_timeout=10 max_conns=0 conns=0;
server 127.0.0.1:8082 addr=127.0.0.1:8082 weight=1 max_fails=1 fail_timeout=10 max_conns=0 conns=0 down;
TEXT
		'verbose listing with upstream_dynamic off');
	is(control('/control?upstream=127.0.0.1:8084')->body(),
		"server 127.0.0.1:8084 addr=127.0.0.1:8084;\n",
		'listing of an address');
	is(control('/control?upstream=off&id=0')->status(), 400,
		'there are no ids to list by');
}

sub off_for_all {
	$t->write_file_expand('nginx.conf', $CONF, HTTP => 'upstream_dynamic off;');
	ok($t->reload(old_gone => 1), 'reload with upstream_dynamic off in http');
	$t->leak_baseline();

	my $all = status();
	is_deeply({ map { $_ => $all->{$_}{dynamic} } qw/plain off on other/ },
		{ plain => $no, off => $no, on => $yes, other => $no },
		'only the upstream that says on');
	is($all->{other}{reason}, '"upstream_dynamic off" is set', 'reason');
	is($all->{plain}{reason}, $NO_ZONE,
		'the reason that comes first');

	is(control('/control?upstream=other&peer=0&down=')->status(), 501,
		'refused now');
	is(control('/control?upstream=on&peer=0&down=')->status(), 200,
		'taken as before');
	is_deeply(burst(uri => '/off', n => 20)->{by_body}, { 8081 => 20 },
		'served as before');
}

# The zone that is advised has room for the servers, and for as many more.
sub advised {
	my $many = join '', map { "server 127.0.0.1:8081;\n" } 1 .. 300;
	my $conf = sub ($zone) {
		return $CONF =~ s/(    upstream plain)/    upstream many { $zone $many }\n$1/r;
	};

	$t->write_file_expand('nginx.conf', $conf->(''), HTTP => '');
	ok($t->reload(old_gone => 1), 'reload with many servers without a zone');
	$t->leak_baseline();
	my ($size) = status('upstream=many')->{many}{reason}
		=~ /add "upstream_auto_zone (\d+k);"/;
	cmp_ok($size =~ s/k//r, '>', 256, "$size is advised");

	$t->write_file_expand('nginx.conf', $conf->("zone many $size;"), HTTP => '');
	ok($t->reload(old_gone => 1), 'reload with such a zone');
	$t->leak_baseline();
	is(status('upstream=many')->{many}{dynamic}, $yes, 'it can be changed');
	my $list = join '', map { "server 127.0.0.1:$_;\n" } 10001 .. 10598;
	my $r = control('/control?upstream=many&replace=', method => 'POST',
		body => $list, headers => { 'Content-Type' => 'text/plain' });
	is($r->status(), 200, 'twice the servers') or diag($r->body());
	is(scalar @{ status('upstream=many')->{many}{peers} }, 598, 'are there');
	$t->leak_baseline();
}
