#!/usr/bin/env perl

# Tests for upstream_status: what it shows of upstreams that can be changed, in
# both forms, and how a request chooses among them.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP ();
use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()
	->has(qw/module http proxy upstream_zone upstream_least_conn unix ipv6/)
	->plan(71);

$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    proxy_connect_timeout 2s;

    upstream all {
        zone all_zone 64k;
        server 127.0.0.1:8081 weight=5 max_conns=7 max_fails=3 fail_timeout=20s;
        server 127.0.0.1:8082 down;
        server [::1]:8083 fail_timeout=90;
        server unix:%%TESTDIR%%/backend.sock max_fails=0;
        server 127.0.0.1:8081 backup;
    }

    upstream fails {
        zone fails_zone 64k;
        server 127.0.0.1:8084;
        server 127.0.0.1:8081;
        least_conn;
    }

    # Names of zones may be those of other upstreams.
    upstream left {
        zone right 64k;
        server 127.0.0.1:8085;
    }

    upstream right {
        zone left 64k;
        server 127.0.0.1:8086;
    }

    # One zone may hold several upstreams.
    upstream shared_a {
        zone shared 128k;
        server 127.0.0.1:8085;
    }

    upstream shared_b {
        zone shared;
        server 127.0.0.1:8086;
    }

    server {
        listen 127.0.0.1:8080;

        %%CONTROL%%

        location /all {
            proxy_pass http://all;
        }

        location /left {
            proxy_pass http://left;
        }

        location /fails {
            proxy_pass http://fails;
        }
    }
}
CONF

my ($yes, $no) = (JSON::PP::true, JSON::PP::false);
my $TIME = qr/\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\z/;

my $one = $t->backend('127.0.0.1:8081');
$t->backend('[::1]:8083');
$t->backend('unix:%%TESTDIR%%/backend.sock');

$t->run();
$t->leak_keys('/status', 8080);

whole();
memory();
headers();
choice();
accepted();
verbose();
text();
activity();
failures();
operator();
shared();
methods();
refusals();

sub status ($args = '') { return get_json("/status?$args")->{upstreams} }

# A peer with the values that nginx gives when nothing is said.
sub peer ($id, $server, %other) {
	my $name = $t->expand($server);

	return {
		id => $id, server => $name, name => $name, backup => $no, weight => 1,
		effective_weight => 1, current_weight => 0, state => 'up', active => 0,
		max_conns => 0, fails => 0, max_fails => 1, fail_timeout => '10s',
		down => $no, %other,
	};
}

sub upstream ($zone, @peers) {
	return {
		zone => $zone, method => 'round_robin', dynamic => $yes, revision => 0,
		peers => \@peers, zombies => 0,
	};
}

# The greatest set of keys, checked as a whole.
sub whole {
	my $got = get_json('/status');
	delete $_->{zone_memory} for values %{ $got->{upstreams} };

	is_deeply([ keys %$got ], ['upstreams'], 'nothing beside the upstreams');
	is_deeply($got->{upstreams}, {
		all => upstream('all_zone',
			peer(0, '127.0.0.1:8081', weight => 5, effective_weight => 5,
				max_conns => 7, max_fails => 3, fail_timeout => '20s'),
			peer(1, '127.0.0.1:8082', state => 'down', down => $yes,
				reason => { by => 'configuration' }),
			peer(2, '[::1]:8083', fail_timeout => '90s'),
			peer(3, 'unix:%%TESTDIR%%/backend.sock', max_fails => 0),
			peer(4, '127.0.0.1:8081', backup => $yes),
		),
		fails => {
			%{ upstream('fails_zone', peer(0, '127.0.0.1:8084'),
				peer(1, '127.0.0.1:8081')) },
			method => 'least_conn',
		},
		left => upstream('right', peer(0, '127.0.0.1:8085')),
		right => upstream('left', peer(0, '127.0.0.1:8086')),
		shared_a => upstream('shared', peer(0, '127.0.0.1:8085')),
		shared_b => upstream('shared', peer(0, '127.0.0.1:8086')),
	}, 'all keys of all upstreams');

	like(http_get('/status')->body(),
		qr/\A\{"upstreams":\{"all":.*"fails":.*"left":.*"right":.*"shared_a":/s,
		'in the order of the configuration');
}

sub memory {
	my $got = status('upstream=all')->{all}{zone_memory};

	is_deeply([ sort keys %$got ], [qw/free pages size used/], 'zone memory');
	is_deeply([ sort keys %{ $got->{pages} } ], [qw/free total/], 'its pages');
	is($got->{size}, 65_536, 'size of the zone');
	cmp_ok($got->{pages}{free}, '>', 0, 'free pages');
	is($got->{used} + $got->{free},
		$got->{pages}{total} * ($got->{free} / $got->{pages}{free}),
		'bytes and pages agree');

	my $all = status();
	is_deeply($all->{shared_a}{zone_memory}, $all->{shared_b}{zone_memory},
		'a zone that two upstreams share');
}

sub headers {
	my $r = http_get('/status');
	is($r->header('Content-Type'), 'application/json', 'type of JSON');
	is($r->header('Cache-Control'), 'no-store', 'is not cached');
	is($r->header('X-Content-Type-Options'), 'nosniff', 'is not guessed at');
	is($r->header('Content-Length'), length $r->body(), 'length');

	$r = http_get('/status?format=text');
	is($r->header('Content-Type'), 'text/plain; charset=utf-8', 'type of text');
	is($r->header('Cache-Control'), 'no-store', 'text is not cached');

	$r = http_get('/status?upstream=nope');
	is($r->header('Cache-Control'), 'no-store', 'an error is not cached');
}

sub choice {
	my @rows = (
		[ 'all', 'all' ], [ 'all_zone', 'all' ], [ 'left', 'left' ],
		[ 'right', 'right' ], [ 'a%6Cl', 'all' ],
	);

	for my $row (@rows) {
		my ($name, $found) = @$row;
		is_deeply([ keys %{ status("upstream=$name") } ], [$found],
			"upstream=$name");
	}

	is_deeply(get_json('/status?upstream=shared')->{error}{text},
		'several upstreams have zone "shared", choose one by name: '
		. '"shared_a", "shared_b"', 'a zone of several');
}

sub accepted {
	my ($json, $text) = ('application/json', 'text/plain; charset=utf-8');
	my @rows = (
		[ undef, '', $json ],
		[ '*/*', '', $json ],
		[ 'application/json', '', $json ],
		[ 'text/plain', '', $text ],
		[ 'text/plain, application/json;q=0.5', '', $text ],
		[ 'text/plain;q=0.2, application/json;q=0.5', '', $json ],
		[ 'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8',
			'', 'text/html; charset=utf-8' ],
		[ 'text/plain', 'format=json', $json ],
		[ 'application/json', 'format=text', $text ],
		[ $json, 'format=html', 'text/html; charset=utf-8' ],
		[ $json, 'format=prometheus', 'text/plain; version=0.0.4; charset=utf-8' ],
	);

	for my $row (@rows) {
		my ($accept, $args, $type) = @$row;
		is(http_get("/status?$args", headers => { Accept => $accept })
			->header('Content-Type'), $type,
			'Accept: ' . ($accept // 'none') . ", \"$args\"");
	}
}

sub verbose {
	my $all = status('verbose=');
	my $total = sub ($number, $weight, $usable) {
		return {
			number => $number, total_weight => $weight, tries => $usable,
			counted => $number, counted_weight => $weight,
			counted_usable => $usable, conns => 0, refs => 0,
		};
	};
	# What was removed from either list lies in that of the primaries.
	my %none = (zombies => 0, zombie_conns => 0);

	is_deeply($all->{all}{leaks}, {
		faults => [],
		primary => { %{ $total->(4, 8, 3) }, %none }, backup => $total->(1, 1, 1),
	}, 'leaks');
	is_deeply($all->{left}{leaks}, {
		faults => [],
		primary => { %{ $total->(1, 1, 1) }, %none },
		# Where lists have slots, backups have some from the beginning.
		backup => $t->has_version('1.27.3') ? undef : $total->(0, 0, 0),
	}, 'leaks without backups');
	is(status()->{all}{leaks}, undef, 'no leaks unless asked for');

	like(http_get('/status?upstream=all&verbose=&format=text')->body(),
		qr/^  primary: number 4\/4, total_weight 8\/8, tries 3\/3, conns 0, refs 0\n  backup: number 1\/1, total_weight 1\/1, tries 1\/1, conns 0, refs 0\n\z/m,
		'leaks as text');
}

sub text {
	my $body = $t->logical(http_get('/status?format=text&upstream=fails')
		->body());
	my $pages = qr/\d+ of \d+ pages free/;

	# Real ports are one digit longer than logical ones, which moves columns.
	$body =~ s/ +/ /g;
	$body =~ s/$pages/N pages free/;

	is($body, <<'TEXT', 'text of an upstream');
upstream "fails": least_conn, zone "fails_zone" with N pages free, revision 0
 id server address state weight active max_conns fails fail_timeout reason
 0 127.0.0.1:8084 127.0.0.1:8084 up 1 0 0 0/1 10s -
 1 127.0.0.1:8081 127.0.0.1:8081 up 1 0 0 0/1 10s -
TEXT

	$body = http_get('/status?format=text')->body();
	my @heads = $body =~ /^upstream "(\w+)": /mg;
	is("@heads", 'all fails left right shared_a shared_b', 'text of all');
	like($body, qr/^  1 .* down +1 .* configuration$/m,
		'a server that is down');
	like($body, qr/^  4 .* up backup /m, 'a backup');

	my ($table) = $body =~ /^upstream "all".*?\n(.*?)\n\n/s;
	my @starts = map { index $_, (split)[3] } (split /\n/, $table)[0 .. 2];
	is_deeply([ @starts[1, 2] ], [ @starts[0, 0] ], 'columns are aligned');
}

# A request under way is one active connection, until it ends.
sub activity {
	$one->set(delay => 1);
	my $handle = http_start(uri => '/all');

	$t->wait_for(sub { status('upstream=all')->{all}{peers}[0]{active} }, 5,
		'the request is under way');
	is_deeply([ map { $_->{active} } @{ status('upstream=all')->{all}{peers} } ],
		[ 1, 0, 0, 0, 0 ], 'active');
	$one->set(delay => 0);
	is(http_finish($handle)->body(), '8081', 'its reply');
	# The reply may be here before the connection to the backend is closed.
	ok($t->wait_for(sub { !status('upstream=all')->{all}{peers}[0]{active} },
		5, 'no active connection'), 'idle again');
}

sub failures {
	is(http_get('/fails')->body(), '8081', 'the next server answers') for 1, 2;

	my $peer = status('upstream=fails')->{fails}{peers}[0];
	is_deeply([ @$peer{qw/state fails down reason/} ],
		[ 'unavail', 1, $no, { by => 'failures' } ], 'unavail');
	like($peer->{last_failure}, $TIME, 'last failure');
	is($peer->{effective_weight}, 0, 'effective weight is lowered');

	is(status('upstream=fails')->{fails}{peers}[1]{last_failure}, undef,
		'no failure, no time of one');
	# nginx does not leave the only server alone.
	is(http_get('/left')->status(), 502, 'the only server fails') for 1, 2;
	is(status('upstream=left')->{left}{peers}[0]{state}, 'up',
		'and is not unavailable');

	like(http_get('/status?upstream=fails&format=text')->body(),
		qr/^  0 .* unavail .* 1\/1 .* max_fails reached$/m, 'as text');
}

# Who took a server down, when, and why; a file that says so is not named.
sub operator {
	control('/control?upstream=left&server=127.0.0.1:8085&down='
		. '&note=disk%20%E2%82%AC%22');

	my $left = status('upstream=left')->{left};
	my $peer = $left->{peers}[0];
	like(delete $peer->{reason}{at}, $TIME, 'time of a change');
	is_deeply($peer->{reason},
		{ by => 'operator', client => '127.0.0.1', note => "disk \x{20ac}\"" },
		'client and note');
	is_deeply([ @$peer{qw/state down/}, $left->{revision} ],
		[ 'down', $yes, 1 ], 'down, in one revision');
	like(http_get('/status?upstream=left&format=text')->body(),
		qr/ down .* client 127\.0\.0\.1 at [\dTZ:-]+: disk \xe2\x82\xac"$/m,
		'note as text');
	is(status('upstream=right')->{right}{revision}, 0,
		'the upstream whose zone has that name is another one');
}

# Two upstreams in one zone have nothing else in common.
sub shared {
	control('/control?upstream=shared_b&peer=0&drain=');
	my $all = status();
	is_deeply([ map { $all->{$_}{peers}[0]{state}, $all->{$_}{revision} }
		qw/shared_a shared_b/ ], [ 'up', 0, 'draining', 1 ],
		'a change of one of two in a zone');
	control('/control?upstream=shared&peer=0&down=');
	is(status()->{shared_a}{peers}[0]{state}, 'up',
		"the zone's name means none of them");
}

sub methods {
	my $r = http_head('/status');
	is($r->status(), 200, 'HEAD');
	cmp_ok($r->header('Content-Length'), '>', 100, 'with the length of GET');

	$r = http_post('/status', '');
	is($r->status(), 405, 'POST');
	is($r->header('Allow'), 'GET, HEAD', 'what is allowed');

	is(http_get('/status', headers => { 'Sec-Fetch-Site' => 'cross-site' })
		->status(), 200, 'reading is not gated');
}

sub refusals {
	my $error = sub ($status, $code, $text) {
		return { error => { status => $status, code => $code, text => $text } };
	};

	is_deeply(get_json('/status?upstream=nope'),
		$error->(404, 'UpstreamNotFound', 'upstream is not found: "nope"'),
		'unknown upstream');
	is(http_get('/status?upstream=nope&format=text')->body(),
		qq(upstream is not found: "nope"\n), 'as text');
	is_deeply(get_json('/status?nope='),
		$error->(400, 'BadArgument', 'unknown argument "nope"'),
		'unknown argument');
	is_deeply(get_json('/status?format=xml'),
		$error->(400, 'BadArgument', 'invalid value "xml" in "format", '
			. 'it must be "json" or "text" or "html" or "prometheus"'),
		'unknown format');
}
