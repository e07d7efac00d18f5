#!/usr/bin/env perl

# Tests for upstreams of pools: a request goes to the first pool that has a
# server for it, and on to the next in the middle of its retries.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/
	module http proxy upstream_zone upstream_least_conn upstream_hash
	upstream_keepalive
/)->plan(59);

$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream_capacity 6;
    log_format addr '$uri $upstream_addr $upstream_status';
    access_log addr.log addr;

    # Forward references, an order that is not that of the priorities.
    upstream app {
        pool dr priority=1;
        pool primary;
    }

    upstream primary {
        zone primary 128k;
        server 127.0.0.1:8081 fail_timeout=1s;
        server 127.0.0.1:8082 fail_timeout=1s;
        keepalive 4;
    }

    upstream dr {
        zone dr 128k;
        least_conn;
        server 127.0.0.1:8083 fail_timeout=1s;
        server 127.0.0.1:8084 fail_timeout=1s;
    }

    # Pools of one server each, in the order of the file.
    upstream lone {
        pool one;
        pool two;
    }

    upstream one {
        zone one 64k;
        server 127.0.0.1:8085 fail_timeout=2s;
    }

    upstream two {
        zone two 64k;
        hash $arg_key;
        server 127.0.0.1:8086 fail_timeout=2s;
    }

    upstream patient {
        pool one failback=3s;
        pool two priority=7;
    }

    upstream recover {
        pool primary failback=2s;
        pool two priority=1;
    }

    upstream full {
        pool small;
        pool two;
    }

    upstream small {
        zone small 64k;
        server 127.0.0.1:8087 max_conns=1;
    }

    server {
        listen 127.0.0.1:8080;

        %%CONTROL%%

        location ~ ^/(?<name>app|lone|patient|recover|full|one)$ {
            proxy_pass http://$name;
            proxy_next_upstream error timeout http_503;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            add_header X-Addr $upstream_addr always;
            add_header X-None $upstream_no_connection always;
        }

        location /limited {
            proxy_pass http://app;
            proxy_next_upstream_tries 3;
            add_header X-Addr $upstream_addr always;
        }

        location /none {
            add_header X-None "[$upstream_no_connection]" always;
            return 204;
        }
    }
}
CONF

my %at = map { $_ => $t->backend("127.0.0.1:$_") } 8081 .. 8087;

$t->run();
$t->leak_keys('/status', 8080);

healthy();
one_by_one();
by_hand();
members();
answers();
limits();
lone();
failback();
recovery();
max_conns();
variable();
reload();

# The pools of an upstream as "NAME STATE", the best first.
sub pools ($name) {
	return join ' ', map { "$_->{pool} $_->{state}" }
		@{ upstream($name)->{pools} };
}

sub upstream ($name) {
	return get_json("/status?upstream=$name")->{upstreams}{$name};
}

sub by_body ($name, $n, %how) {
	my $got = burst(uri => "/$name", n => $n, concurrency => 1, %how);
	return { %{ $got->{by_body} },
		$got->{failed} ? (failed => $got->{failed}) : () };
}

# Addresses that a request was tried at, by their ports.
sub tried ($uri) {
	my $addr = $t->logical(http_get($uri)->header('X-Addr') // '');
	return $addr =~ s/127\.0\.0\.1://gr;
}

sub healthy {
	is_deeply(by_body('app', 20), { 8081 => 10, 8082 => 10 },
		'the better pool serves, by its own method');
	my $app = upstream('app');
	is_deeply([ @$app{qw/active zone peers/} ], [ 'primary', undef, [] ],
		'the status: no placeholder');
	is(pools('app'), 'primary active dr standby', 'the pools, the best first');
	is(upstream('primary')->{leaks}, undef, 'pools are upstreams as any');
	my ($one) = map { $_->{active} } upstream('dr');
	is($one, undef, 'which have no pools');
}

# Hosts die, the other pool serves, they return.
sub one_by_one {
	my $mark = $t->log_mark();
	$at{8081}->stop();
	is_deeply(by_body('app', 10), { 8082 => 10 }, 'one died: the other serves');
	$at{8082}->stop();
	my $got = by_body('app', 12);
	is_deeply($got, { 8083 => 6, 8084 => 6 }, 'both died: the next pool');
	ok($t->wait_for(sub { pools('app') =~ /dr active/ }, 5, 'dr is active'),
		'the status says so');
	my ($better) = @{ upstream('app')->{pools} };
	like($better->{why}, qr/\Ano usable server: 0 down, [012] unavailable, [012] to be tried again\z/,
		'and why not the better one');
	my $takes_over = qr/upstream "app": pool "dr" takes over from "primary": no/;
	is(scalar $t->grep_log(qr/\[warn\].* $takes_over usable server/, $mark), 1,
		'so does the log, once');
	like(upstream('app')->{since}, qr/\A20\d\d-.*Z\z/, 'and since when');

	$mark = $t->log_mark();
	$_->restart() for @at{8081, 8082};
	ok($t->wait_for(sub {
		by_body('app', 4);
		return pools('app') eq 'primary active dr standby';
	}, 10, 'primary is back'), 'they return');
	# Each is tried once before it counts as up.
	by_body('app', 4);
	is_deeply(by_body('app', 8), { 8081 => 4, 8082 => 4 }, 'and serve again');
	ok($t->find_in_log(qr/\[notice\].* pool "primary" is active again/, 5, $mark),
		'the log says so');

	# In the middle of a request: both fail, and nobody had noticed.
	$_->stop() for @at{8081, 8082};
	like(tried('/app'), qr/\A808[12], 808[12], 808[34]\z/,
		'all of one pool, then the next');
	$_->restart() for @at{8081, 8082};
	$t->wait_for(sub { by_body('app', 4); pools('app') =~ /primary active/ },
		10, 'primary is back again');
}

# Without traffic: what an operator does counts at once.
sub by_hand {
	control('/control?upstream=primary&peer=0&down=');
	is(pools('app'), 'primary active dr standby', 'one is down by hand');
	control('/control?upstream=primary&peer=1&down=');
	is(pools('app'), 'primary unavail dr active', 'both are');
	is(upstream('app')->{pools}[0]{why},
		'no usable server: 2 down, 0 unavailable, 0 to be tried again', 'the reason');
	is_deeply(by_body('app', 8), { 8083 => 4, 8084 => 4 }, 'the next pool');
	control('/control?upstream=dr&servers=127.0.0.1:8083,127.0.0.1:8084&down=');
	my $r = http_get('/app');
	is($r->status() . ' ' . $r->header('X-Addr'), '502 app',
		'all are: the log names the upstream');
	my $app = upstream('app');
	is_deeply([ $app->{active}, pools('app') ],
		[ undef, 'primary unavail dr unavail' ], 'none is active');
	control('/control?upstream=dr&peer=1&up=');
	is_deeply(by_body('app', 4), { 8084 => 4 }, 'recovery');
	control('/control?upstream=*&server=127.0.0.1&up=');
	is_deeply(by_body('app', 8), { 8081 => 4, 8082 => 4 }, 'of all');
}

# Servers come and go, in pools as elsewhere; a pool may be empty.
sub members {
	control('/control?upstream=primary&add=&server=127.0.0.1:8087');
	is_deeply(by_body('app', 6), { 8081 => 2, 8082 => 2, 8087 => 2 }, 'added');
	control("/control?upstream=primary&remove=&server=127.0.0.1:$_")
		for 8081, 8082, 8087;
	is_deeply(by_body('app', 4), { 8083 => 2, 8084 => 2 }, 'all removed');
	is(upstream('app')->{pools}[0]{why}, 'no servers', 'the reason');
	control("/control?upstream=primary&add=&server=127.0.0.1:$_&fail_timeout=1")
		for 8081, 8082;
	is_deeply(by_body('app', 4), { 8081 => 2, 8082 => 2 }, 'added again');
}

# Statuses are failures if proxy_next_upstream says so.
sub answers {
	$_->set(status => 503) for @at{8081, 8082};
	like(tried('/app'), qr/\A808[12], 808[12], 808[34]\z/, 'bad answers');
	$_->set(status => 503) for @at{8083, 8084};
	# Until all of them may be tried again.
	sleep 3;
	my $r = http_get('/app');
	is($r->status() . $r->header('X-None'), '5030',
		'when all do, the client gets the last one');
	$_->set(status => 200) for @at{8081 .. 8084};
	$t->wait_for(sub { my $got = by_body('app', 4); $got->{8081} && $got->{8082} },
		5, 'well again');
}

# The limit of tries is one for all pools.
sub limits {
	$_->stop() for @at{8081 .. 8084};
	sleep 2;
	my @tried = split /, /, tried('/limited');
	is(scalar @tried, 3, 'proxy_next_upstream_tries');
	sleep 2;
	@tried = split /, /, tried('/app');
	is(scalar @tried, 4, 'without it all of all pools');
	$_->restart() for @at{8081 .. 8084};
	$t->wait_for(sub { my $got = by_body('app', 4); $got->{8081} && $got->{8082} },
		5, 'all are back');
}

# A server that is alone in its pool is left alone after failures.
sub lone {
	is_deeply(by_body('lone', 4), { 8085 => 4 }, 'a pool of one');
	$at{8085}->stop();
	my $mark = $t->log_mark();
	is_deeply(by_body('lone', 6, uri => '/lone?key=1'), { 8086 => 6 },
		'the next serves');
	is(scalar $t->grep_log(qr/connect\(\) failed/, $mark), 1,
		'and the dead one is tried once');
	is(pools('lone'), 'one unavail two active', 'the status');
	$at{8085}->restart();
	ok($t->wait_for(sub { by_body('lone', 1)->{8085} }, 6, 'it is back'),
		'it returns');
}

# A better pool waits until it had a usable server for so long.
sub failback {
	# It was down a moment ago.
	$t->wait_for(sub { by_body('patient', 1)->{8085} }, 10, 'the best serves');
	control('/control?upstream=one&peer=0&down=');
	is_deeply(by_body('patient', 2), { 8086 => 2 }, 'it is down');
	is(pools('patient'), 'one unavail two active', 'and the status shows it');
	control('/control?upstream=one&peer=0&up=');
	my $from = now();
	is_deeply(by_body('patient', 2), { 8086 => 2 }, 'up, and not used yet');
	like(pools('patient'), qr/\Aone waiting two active\z/, 'it waits');
	like(upstream('patient')->{pools}[0]{why},
		qr/\Ausable, failback in [123]s\z/, 'for how long');
	# The other upstream has no such patience.
	is_deeply(by_body('lone', 2), { 8085 => 2 }, 'it serves others meanwhile');
	$t->wait_for(sub { by_body('patient', 1)->{8085} }, 10, 'failback');
	my $waited = now() - $from;
	ok($waited > 2 && $waited < 6, 'failback after its time')
		or diag("$waited s");

	# Rather it than none.
	control('/control?upstream=one&peer=0&down=');
	by_body('patient', 1);
	is(pools('patient'), 'one unavail two active', 'down once more');
	control('/control?upstream=one&peer=0&up=');
	control('/control?upstream=two&peer=0&down=');
	is_deeply(by_body('patient', 2), { 8085 => 2 }, 'not waiting for nothing');
	is(pools('patient'), 'one active two unavail', 'which the status shows');
	control('/control?upstream=two&peer=0&up=');
	is_deeply(by_body('patient', 2), { 8085 => 2 }, 'and it keeps that part');
}

# The time runs from the first request that succeeds, which is a trial.
sub recovery {
	my $primary = qr/\A808[12]\z/;
	# It was down by hand, which a look at all upstreams has seen.
	$t->wait_for(sub { by_body('recover', 1); pools('recover') =~ /\Aprimary active/ },
		10, 'primary is active');
	$_->stop() for @at{8081, 8082};
	is_deeply(by_body('recover', 3), { 8086 => 3 }, 'failures');
	$_->restart() for @at{8081, 8082};
	my $from;
	$t->wait_for(sub {
		$from = now();
		return http_get('/recover')->body() =~ $primary;
	}, 10, 'a trial');
	is_deeply(by_body('recover', 4), { 8086 => 4 }, 'which is the only one');
	is(pools('recover'), 'primary waiting two active', 'it waits from then');
	$t->wait_for(sub { http_get('/recover')->body() =~ $primary }, 10, 'failback');
	my $waited = now() - $from;
	ok($waited >= 2 && $waited < 5, 'after its time') or diag("$waited s");
}

# A pool that has no connection left is passed over, and stays active.
sub max_conns {
	$at{8087}->set(delay => 2);
	my $held = http_start(uri => '/full');
	$t->wait_for(sub { upstream('small')->{peers}[0]{active} }, 5, 'full');
	is_deeply(by_body('full', 3), { 8086 => 3 }, 'the next one serves');
	is(pools('full'), 'small active two standby', 'for these requests only');
	http_finish($held);
	$at{8087}->set(delay => 0);
}

# Whether there was any connection.
sub variable {
	is(http_get('/app')->header('X-None'), '0', 'a connection');
	is(http_get('/none')->header('X-None'), '[]', 'no upstream at all');
	$_->stop() for @at{8085, 8086};
	is(http_get('/lone')->header('X-None'), '1', 'no connection');
	$_->restart() for @at{8085, 8086};
}

# With another set of pools.
sub reload {
	my $conf = $t->read_file('nginx.conf');
	$conf =~ s/pool dr priority=1;\s+pool primary;/pool dr;/ or die;
	$t->write_file('nginx.conf', $conf);
	ok($t->reload(), 'a reload');
	is_deeply(by_body('app', 4), { 8083 => 2, 8084 => 2 }, 'with other pools');
	is(pools('app'), 'dr active', 'as the status shows');
}
