#!/usr/bin/env perl

# Tests for the requests of lua-resty-upstream's example: /pools, /down_host and
# /up_host, as recorded from a live run of it.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP;
use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()
	->has(qw/module http proxy upstream_zone upstream_least_conn/)
	->plan(85);

my $CONF = <<'CONF';
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream app {
        pool primary priority=5;
        pool dr priority=10;
    }

    upstream other {
        pool spare;
        pool primary priority=1;
    }

    upstream primary {
        zone primary 64k;
        server 127.0.0.1:8081 weight=10 max_fails=2 fail_timeout=60s;
        server 127.0.0.1:8082 weight=10 max_fails=2 fail_timeout=60s;
    }

    upstream dr {
        zone dr 64k;
        least_conn;
        server 127.0.0.1:8083 weight=10 max_fails=2;
        server 127.0.0.1:8084 weight=10 max_fails=3;
    }

    upstream spare {
        zone spare 64k;
        server unix:%%TESTDIR%%/spare.sock;
        upstream_guard min=1;
    }

    upstream alone {
        zone alone 64k;
        server 127.0.0.1:8085;
    }

    # The ports of the example's API.
    server {
        listen 127.0.0.1:8080;

        location / {
            upstream_control upstream=app;
        }

        location /all/ {
            upstream_control;
        }

        location /old/ {
            upstream_control host_errors=200;
        }

        location /post/ {
            upstream_control methods=POST upstream=app;
        }

        location /conf/ {
            upstream_conf;
        }

        location /status {
            upstream_status;
        }

        location /app {
            proxy_pass http://app;
            add_header X-Addr $upstream_addr always;
        }
    }
}
CONF

bad_conf();

$t->write_file_expand('nginx.conf', $CONF);
$t->backend("127.0.0.1:$_") for 8082 .. 8084;
$t->run();
$t->leak_keys('/status', 8080);

pools();
by_hand();
failed();
unknown();
guarded();
methods();
narrowed();
json();
logged();

sub host ($id, $port, %other) {
	return { id => "$id", host => '127.0.0.1', port => port($port),
		weight => 10, up => JSON::PP::true, failcount => 0, lastfail => 0,
		%other };
}

sub down () { return (up => JSON::PP::false) }

# "STATUS BODY" of a reply.
sub reply ($uri, %how) {
	my $r = http_get($uri, %how);
	return $t->logical($r->told());
}

# Hosts of a pool.
sub hosts ($pool) { return get_json('/pools')->{$pool}{hosts} }

sub pools {
	my $r = http_get('/pools');
	is($r->status(), 200, 'pools: status');
	is($r->header('Content-Type'), 'application/json', 'pools: type');

	is_deeply(get_json('/pools'), {
		primary => {
			up => JSON::PP::true, method => 'round_robin', priority => 5,
			failed_timeout => 60, max_fails => 2,
			hosts => [ host(1, 8081), host(2, 8082) ],
		},
		# Its hosts differ in max_fails.
		dr => {
			up => JSON::PP::true, method => 'least_conn', priority => 10,
			failed_timeout => 10, hosts => [ host(1, 8083), host(2, 8084) ],
		},
	}, 'pools: all of them');
	like($r->body(), qr/\A\{"primary":\{.*\},"dr":\{.*\}\z/,
		'pools: in the order of the configuration');
	is(http_get('/any/where/pools')->body(), $r->body(),
		'pools: at the end of a path');
	is(http_get('/x/%70ools')->body(), $r->body(), 'pools: decoded');

	my $all = get_json('/all/pools');
	is_deeply([ sort keys %$all ], [qw/dr primary spare/],
		'pools: those of all upstreams, and no other');
	is($all->{primary}{priority}, 5, 'pools: priority of the first');
	is_deeply($all->{spare}{hosts}, [ { id => '1',
		host => 'unix:' . $t->testdir() . '/spare.sock', weight => 1,
		up => JSON::PP::true, failcount => 0, lastfail => 0 } ],
		'pools: a host without a port');
	is($all->{spare}{priority}, 0, 'pools: priority of another upstream');
}

sub by_hand {
	for my $host (qw/1 2/) {
		is(reply("/down_host/primary/$host"), '200 ', "down: host $host");
	}
	is_deeply(hosts('primary'), [ host(1, 8081, down()), host(2, 8082, down()) ],
		'down: both are');
	ok(!get_json('/pools')->{primary}{up}, 'down: so is the pool');

	is(http_get('/app')->status(), 200, 'down: the other pool serves');
	my %who = map { $t->logical(http_get('/app')->header('X-Addr')) => 1 } 1 .. 4;
	is_deeply(\%who, { '127.0.0.1:8083' => 1, '127.0.0.1:8084' => 1 },
		'down: with its hosts');

	is(reply('/up_host/primary/2'), '200 ', 'up: one');
	%who = map { $t->logical(http_get('/app')->header('X-Addr')) => 1 } 1 .. 4;
	is_deeply(\%who, { '127.0.0.1:8082' => 1 }, 'up: and it serves');
	ok(get_json('/pools')->{primary}{up}, 'up: so is the pool');

	my $address = '127.0.0.1:' . port(8083);
	is(reply("/down_host/dr/$address"), '200 ', 'down: by address');
	is_deeply(hosts('dr'), [ host(1, 8083, down()), host(2, 8084) ],
		'down: that one');
	is(reply('/up_host/dr/1'), '200 ', 'up: by number');
}

# Nobody listens at 8081.
sub failed {
	my $started = time;
	is(reply('/up_host/primary/1'), '200 ', 'failed: a host comes');
	http_get("/app") for 1 .. 8;
	my ($host) = hosts('primary')->@*;
	ok(!$host->{up}, 'failed: it is not up');
	is($host->{failcount}, 2, 'failed: how often');
	ok($host->{lastfail} >= $started && $host->{lastfail} <= time,
		'failed: when');
	ok(get_json('/pools')->{primary}{up}, 'failed: the pool is up');

	is(reply('/down_host/primary/1'), '200 ', 'failed: taken down');
	is_deeply(hosts('primary')->[0], host(1, 8081, down()),
		'failed: by hand, so that no failure is counted');
	is(reply('/up_host/primary/1'), '200 ', 'failed: brought up');
	is_deeply(hosts('primary')->[0], host(1, 8081),
		'failed: and its failures are forgotten');
	is(reply('/down_host/primary/1'), '200 ', 'failed: taken down again');
}

sub unknown {
	my @rows = (
		[ '/down_host/nope/1', 'Pool nope not found' ],
		[ '/up_host/nope/1', 'Pool not found' ],
		[ '/down_host/alone/1', 'Pool alone not found' ],
		[ '/up_host/app/1', 'Pool not found' ],
		[ '/down_host/primary/3', 'Host not found' ],
		[ '/up_host/primary/0', 'Host not found' ],
		[ '/up_host/primary/x', 'Host not found' ],
	);
	for my $row (@rows) {
		my ($uri, $words) = @$row;
		is(reply("/all$uri"), "500 \"$words\"", "unknown: $uri");
		is(reply("/old$uri"), "200 \"$words\"", "unknown: $uri, with 200");
	}
	is(http_get('/down_host/nope/1')->header('Content-Type'),
		'application/json', 'unknown: type');

	for my $uri (qw{/down_host/primary /down_host/ /up_host/a/1/2 /up_host//1}) {
		my $r = http_get($uri);
		is($r->status(), 404, "unknown: $uri");
	}
	is(reply('/down_host/primary'), '404 "no such URI \"/down_host/primary\", '
		. 'it must end in \"/down_host/POOL/HOST\" or \"/up_host/POOL/HOST\""',
		'unknown: in words');
	is(reply('/pools?upstream=app'), '400 "unknown argument \"upstream\""',
		'unknown: the path comes before the arguments');
	like(reply('/pool'), qr/\A400 upstream required\z/, 'unknown: other paths');
}

sub guarded {
	is(reply('/old/down_host/spare/1'), '409 "guard: 0 usable servers would be '
		. 'left, at least 1 must be, use \"force=\""', 'guard: refused');
	is(reply('/old/down_host/spare/1?force=&note=power'), '200 ',
		'guard: set aside');
	my ($peer) = get_json('/status?upstream=spare')->{upstreams}{spare}{peers}->@*;
	is("$peer->{state} $peer->{reason}{note}", 'down power', 'guard: with a note');
	is(reply('/old/up_host/spare/1'), '200 ', 'guard: up');
}

sub methods {
	my $form = { 'Content-Type' => 'application/x-www-form-urlencoded' };
	is(http_head('/down_host/dr/1')->status(), 405, 'HEAD changes nothing');
	is(reply('/post/down_host/dr/1'), '405 only POST allowed', 'GET may not');
	ok(hosts('dr')->[0]{up}, 'nothing was changed');
	is(http_post('/post/down_host/dr/1', 'note=a+b', headers => $form)->status(),
		200, 'POST may');
	ok(!hosts('dr')->[0]{up}, 'it was changed');
	is(http_post('/post/up_host/dr/1', '')->status(), 200, 'also without a body');
	is(http_get('/up_host/dr/1', headers => { Origin => 'http://evil' })->status(),
		403, 'other sites may not');
	# The other directive has no such paths.
	like(reply('/conf/pools'), qr/\A400 missing "upstream" argument/,
		'upstream_conf');
}

sub narrowed {
	my %rows = (
		'/down_host/spare/1' => '500 "Pool spare not found"',
		'/?upstream=alone' => '404 upstream is not found: "alone"',
		'/?upstream=other' => '404 upstream is not found: "other"',
		'/?stream=alone&peer=0&down=1' => '404 down nil upstream not found',
		'/?upstream=*&server=127.0.0.1:' . port(8085) . '&down='
			=> '404 no upstream has this server: "127.0.0.1:8085"',
		'/?upstream=app'
			=> "200 # pool primary priority=5 failback=0s active\n"
			. "# pool dr priority=10 failback=0s standby\n",
		'/?upstream=app&peer=0&down='
			=> '501 upstream is static: it has pools, whose servers can be changed',
	);
	is(reply($_), $rows{$_}, "narrow: $_") for sort keys %rows;
	my $r = http_post('/?upstream=alone&replace=', 'server 127.0.0.1:1;',
		headers => { 'Content-Type' => 'text/plain' });
	is($r->status(), 404, 'narrow: no list for another');
	is(http_get('/?upstream=primary')->status(), 200, 'narrow: its own');
}

sub json {
	my %headers = (headers => { Accept => 'application/json' });
	my $revision = get_json('/status')->{upstreams}{dr}{revision};
	my $r = get_json('/down_host/dr/2', %headers);
	is("$r->{upstream} $r->{revision} $r->{server}{id} $r->{server}{state}",
		'dr ' . ($revision + 1) . ' 1 down', 'JSON: the server');
	like(reply('/down_host/dr/7', %headers),
		qr/\A400 \{"error":.*"code":"ServerNotFound"\}\}\z/, 'JSON: an error');
	is(reply('/up_host/dr/2'), '200 ', 'JSON: not unless it is asked for');
}

sub logged {
	my $mark = $t->log_mark();
	http_get('/down_host/nope/1');
	ok($t->find_in_log(qr/\[error\].*upstream control: Pool nope not found,/, 5,
		$mark), 'log: an error');
	http_get('/down_host/dr/1?note=x');
	ok($t->find_in_log(qr/\[notice\].*upstream "dr" server ".*": state up -> down,/,
		5, $mark), 'log: a change');
}

sub bad_conf {
	my %rows = (
		'upstream=nope' => 'upstream_control: no upstream "nope"',
		'upstream=127.0.0.1' => 'upstream_control: no upstream "127.0.0.1"',
		'upstream=' => 'invalid parameter "upstream="',
		'upstream=app upstream=dr' => 'duplicate parameter "upstream=dr"',
		'host_errors=404' => 'invalid parameter "host_errors=404"',
	);
	for my $words (sort keys %rows) {
		my $conf = $CONF =~ s/upstream_control upstream=app;/upstream_control $words;/r;
		my ($code, $out) = $t->test_config($conf);
		like($out, qr/\[emerg\].*\Q$rows{$words}\E/, "conf: $words");
	}
}
