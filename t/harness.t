#!/usr/bin/env perl

# Tests for the test harness itself, with plain nginx: what it offers works,
# and the assertions that end each file do fail when they should.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP ();
use Test::More;

use Test::Nginx;
use Test::Nginx::Child;
use Test::Nginx::Leaks;
use Test::Nginx::Ports qw/expand_ports/;
use Test::Nginx::Process qw/wait_until alive group/;
use Test::Nginx::Response;

# The module is not what is tested here.
delete $ENV{TEST_NGINX_MODULE};

my $t = Test::Nginx->new(timeout => 240)
	->has(qw/http proxy upstream_zone upstream_keepalive unix ipv6/)
	->plan(143);

$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream u {
        zone u 64k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        keepalive 8;
    }

    server {
        listen 127.0.0.1:8080;
        listen [::1]:8080;
        listen unix:%%TESTDIR%%/nginx.sock;

        proxy_http_version 1.1;
        proxy_set_header Connection "";

        location / {
            proxy_pass http://u;
        }

        location /one/ {
            proxy_pass http://127.0.0.1:8083/;
            proxy_read_timeout 1s;
        }

        location /refused {
            proxy_pass http://127.0.0.1:8084;
        }

        location /port {
            return 200 "server 127.0.0.1:8081 $request_method $arg_server\n";
        }

        location /upstreamstatus {
            try_files /status.json =404;
        }
    }
}
CONF

my @backends = map { $t->backend("127.0.0.1:$_") } 8081, 8082;
my $one = $t->backend('127.0.0.1:8083');

ok($t->run(), 'run');

# the single parts

responses();
ports();
client();
configurations();
backends();
bursts();
loads();
processes();
leaks();

# files that must fail, and files that must not

verdicts();
endings();
neighbours();

sub responses {
	my @rows = (
		[ 'length', "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabX", 'ab', 1 ],
		[ 'chunks', "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
			. "2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n", 'abc', 1 ],
		[ 'after 100', "HTTP/1.1 100 Continue\r\n\r\n"
			. "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", '', 0 ],
		[ 'no reason', "HTTP/1.1 304\r\nConnection: close\r\n\r\n", '', 0 ],
	);

	for my $row (@rows) {
		my ($name, $bytes, $body, $reusable) = @$row;

		# No part of it may pass for the whole.
		my $whole = length($bytes) - ($name eq 'length');
		my $early = grep {
			my $part = substr $bytes, 0, $_;
			Test::Nginx::Response->parse(\$part);
		} 1 .. $whole - 1;

		my $reply = Test::Nginx::Response->parse(\$bytes);
		is_deeply([ $early, $reply->body(), $reply->reusable() ],
			[ 0, $body, $reusable ], "reply with $name");
	}

	my $bytes = "HTTP/1.1 200 OK\r\n\r\nab";
	is(Test::Nginx::Response->parse(\$bytes), undef, 'reply without length');
	is(Test::Nginx::Response->parse(\$bytes, eof => 1)->body(), 'ab',
		'reply ended by close');

	$bytes = 'SSH-2.0';
	is(eval { Test::Nginx::Response->parse(\$bytes) }, undef, 'not a reply');
}

sub ports {
	my $p = port(8080);

	cmp_ok($p, '>=', 10_000, 'port is mapped');
	is(port(8080), $p, 'port stays');
	isnt(port(8089), $p, 'ports differ');
	is(port(80), 80, 'other ports are left alone');
	is(expand_ports('a 127.0.0.1:8080; [::1]:8080 127.0.0.1%3A8080'),
		"a 127.0.0.1:$p; [::1]:$p 127.0.0.1%3A$p", 'ports in text');
	is($t->expand('%%PORT_8080%% 1127.0.0.1:80801 /8080'),
		"$p 1127.0.0.1:80801 /8080", 'no ports in text');
	is($t->logical("127.0.0.1:$p [::1]:$p%3A$p $p"),
		"127.0.0.1:8080 [::1]:8080%3A8080 $p", 'ports back');
	is(eval { $t->expand('%%NOPE%%') }, undef, 'unknown hole');
}

sub client {
	my $r = http_get('/port');
	is($r->status(), 200, 'get');
	is($r->header('content-TYPE'), 'text/plain', 'header');
	is($r->body(), 'server 127.0.0.1:' . port(8081) . " GET \n", 'body');

	is(http_get('/port', host => '::1')->status(), 200, 'over IPv6');
	is(http_get('/port', socket => $t->testdir() . '/nginx.sock')->status(),
		200, 'over a unix socket');

	$r = control('/port?server=[::1]:8085');
	is($r->body(), "server 127.0.0.1:8081 GET [::1]:8085\n", 'mapped ports');

	$r = http_head('/port');
	is_deeply([ $r->status(), $r->body(), $r->error() ], [ 200, '', '' ],
		'head');

	http_post('/one/p', 'a=b', headers => { 'X-A' => [ 1, 2 ] });
	my ($got) = reverse $one->requests();
	is_deeply([ @$got{qw/method uri body/}, $got->{headers}{'x-a'} ],
		[ 'POST', '/p', 'a=b', 2 ], 'post');

	like(http("GET /port HTTP/1.0\r\n\r\n"), qr/\AHTTP\/1.1 200 .*GET \n\z/s,
		'raw');
	my $raw = http("GET /port HTTP/1.1\r\nHost: a\r\n\r\n" x 2, replies => 2);
	is(scalar(() = $raw =~ /GET \n/g), 2, 'raw, two on one connection');

	like(http_get('/', port => 8084)->error(), qr/connect: .*refused/,
		'error of a refused connection');
	is(http_get('/', port => 8084)->status(), 0, 'status of no reply');
	is(eval { get_json('/port') }, undef, 'not JSON');
	is(eval { http_get('/', host => '192.0.2.1') }, undef, 'loopback only');

	$one->set(delay => 0.3);
	my @handles = map { http_start(uri => "/$_", port => 8083) } 1 .. 3;
	undef $handles[1];
	is(join(' ', map { http_finish($_)->status() } @handles[0, 2]), '200 200',
		'started, finished');
	is(http_finish(http_start(port => 8083), timeout => 0.1)->error(),
		'timed out', 'not finished');
	is(eval { http_start(port => 8084) }, undef, 'not started');
	$one->set(delay => 0);
}

sub configurations {
	my $conf = "%%TEST_GLOBALS%%\nevents { }\nhttp { %%X%% }\n";

	my ($code, $text) = $t->test_config($conf, X => '');
	is($code, 0, 'good configuration') or diag($text);

	($code, $text) = $t->test_config($conf, X => 'nope on;');
	is($code, 1, 'bad configuration');
	like($text, qr/\[emerg\].*unknown directive "nope"/, 'and its message');
	is($t->grep_log(qr/nope/), 0, 'not in the log of the instance');

	ok($t->has_version('1.10') && !$t->has_version('99.1'), 'versions');
	ok($t->has_module_built('http') && !$t->has_module_built('module'),
		'modules');
}

sub backends {
	is(http_get('/refused')->status(), 502, 'a port without daemon refuses');
	is(http_get('/one/a')->body(), '8083', 'backend says its port');

	$one->set(status => 503, uris => { '/ok' => { status => 200 } });
	is(http_get('/one/a')->status(), 503, 'status is set');
	is(http_get('/one/ok?a=b')->status(), 200, 'status of a uri');

	$one->set(status => 200, hang => 1);
	is(http_get('/one/a')->status(), 504, 'hanging');
	like(http_get('/a', port => 8083, timeout => 0.3)->error(), qr/timed out/,
		'client does not wait for ever');

	$one->set(hang => 0, delay => 0.3);
	my $begin = now();
	is(http_get('/one/ok')->status(), 200, 'delayed');
	cmp_ok(now() - $begin, '>=', 0.3, 'by its time');

	$one->set(delay => 0, reset => 'request');
	like(http_get('/a', port => 8083)->error(), qr/reset/, 'reset on request');
	$one->set(reset => 'accept');
	isnt(http_get('/a', port => 8083)->error(), '', 'reset on accept');

	$one->set(reset => '', partial => 1);
	is(http_get('/a', port => 8083)->error(), 'closed inside a reply',
		'partial');

	$one->set(partial => 0, silent_close => 1);
	my $before = $one->count();
	my $got = burst(uri => '/a', port => 8083, n => 5, concurrency => 1,
		keepalive => 1);
	is($got->{ok}, 5, 'closed connections are not failures');
	is($got->{retried}, 4, 'but are counted');
	is($one->count() - $before, 5, 'requests are counted');

	$one->stop();
	is(http_get('/one/a')->status(), 502, 'stopped');
	$one->restart();
	$one->set(silent_close => 0);
	is(http_get('/one/a')->status(), 200, 'restarted');

	my $tcp = $t->backend('unix:%%TESTDIR%%/tcp.sock', protocol => 'tcp',
		body => 'hello');
	is(http('', socket => $t->testdir() . '/tcp.sock'), 'hello', 'tcp, unix');
	is($tcp->connections(), 1, 'connections are counted');

	$t->run_daemon(sub ($text) {
		my $s = IO::Socket::IP->new(LocalHost => '127.0.0.1', Listen => 5,
			LocalPort => port(8085), ReuseAddr => 1) or die;
		while (my $c = $s->accept()) { print {$c} $text; }
	}, 'own');
	ok($t->waitforsocket('127.0.0.1:' . port(8085)), 'waitforsocket');
	is(http('', port => 8085), 'own', 'run_daemon');
}

sub bursts {
	my $start = now();
	my $got = burst(uri => '/', n => 300, concurrency => 20);

	is_deeply([ @$got{qw/total ok failed/} ], [ 300, 300, 0 ], 'burst');
	is_deeply($got->{by_body}, { 8081 => 150, 8082 => 150 }, 'by body');
	is_deeply($got->{by_status}, { 200 => 300 }, 'by status');

	my @late = grep { $_->{started} < $start || $_->{ended} > now()
		|| $_->{started} > $_->{ended} } @{ $got->{requests} };
	is(@{ $got->{requests} } - @late, 300, 'times');

	my $wide = 0;
	my @edges = sort { $a->[0] <=> $b->[0] }
		map { [ $_->{started}, 1 ], [ $_->{ended}, -1 ] }
			@{ $got->{requests} };
	my $now = 0;
	for (@edges) { $now += $_->[1]; $wide = $now if $now > $wide; }
	cmp_ok($wide, '>', 10, 'at the same time');
	cmp_ok($wide, '<=', 20, 'within the concurrency');

	$got = burst(uri => sub ($n) { $n % 2 ? '/' : '/refused' }, n => 40,
		keepalive => 1);
	is_deeply([ @$got{qw/ok failed/}, $got->{by_status}{502} ],
		[ 20, 20, 20 ], 'failures');
	cmp_ok($got->{reused}, '>=', 20, 'kept-alive connections');

	$got = burst(port => 8084, n => 3);
	is((values %{ $got->{errors} })[0], 3, 'errors');

	$one->set(hang => 1);
	$got = burst(uri => '/', port => 8083, n => 3, timeout => 0.3);
	is_deeply($got->{errors}, { 'timed out' => 3 }, 'timeouts');
	$one->set(hang => 0);
}

sub loads {
	my $load = $t->load(uri => '/', seconds => 20, concurrency => 4,
		keepalive => 1, records => 1, processes => 2);
	ok($load->running(), 'load is running');

	$backends[1]->stop();
	ok($t->find_in_log(qr/upstream: .*:@{[ port(8082) ]}/), 'find in log');

	my $begin = now();
	my $got = $load->finish(now => 1);
	cmp_ok(now() - $begin, '<', 10, 'load ends when told');
	is($got->{failed}, 0, 'no request failed') or diag(explain($got->{errors}));
	cmp_ok($got->{total}, '>', 8, 'requests in between');
	is(scalar @{ $got->{requests} }, $got->{total}, 'records');
	$backends[1]->restart();

	SKIP: {
		skip('no wrk', 1) unless $t->has_module_built('wrk');
		$got = $t->wrk(uri => '/port', seconds => 1, connections => 4);
		ok($got->{total} > 0 && !$got->{failed}, 'wrk');
	}
}

sub processes {
	my @old = $t->workers();
	is(@old, 2, 'workers');

	ok($t->reload(old_gone => 1), 'reload');
	is(scalar(grep { alive($_) } @old), 0, 'old workers are gone');
	is($t->old_workers(), 0, 'none is shutting down');

	# A request under way keeps its worker.
	$one->set(delay => 0.5);
	my $load = $t->load(uri => '/one/', concurrency => 1, seconds => 10);
	@old = $t->workers();
	$t->reload();
	ok(!(grep { my $pid = $_; grep { $_ == $pid } @old } $t->workers()),
		'all workers are new');
	is($load->finish(now => 1)->{failed}, 0, 'requests outlive a reload');
	$one->set(delay => 0);

	my $second = Test::Nginx->new();
	$second->write_file_expand('nginx.conf',
		$t->read_file('nginx.conf') =~ s/server \{.*\}/server { listen 127.0.0.1:8090; } }/sr
		=~ s/@{[ $t->testdir() ]}/%%TESTDIR%%/gr);
	$second->run();
	is(http_get('/', port => 8090)->status(), 403, 'a second instance');

	my ($victim, $other) = $t->workers();
	$t->kill_worker($victim);
	my @now = $t->workers();
	ok(@now == 2 && !(grep { $_ == $victim } @now), 'worker is replaced');
	ok((grep { $_ == $other } @now), 'the other one is not');
}

# A status without leaks.
sub status {
	my ($no, $yes) = (JSON::PP::false, JSON::PP::true);
	my @peers = map { { backup => $no, state => 'up', weight => $_,
		active => 0, down => $no } } 1, 2;
	@{ $peers[1] }{qw/down state/} = ($yes, 'down');

	return { upstreams => {
		s => { dynamic => $no, peers => [] },
		u => {
			dynamic => $yes, peers => \@peers,
			zone_memory => { pages => { total => 15, free => 9 } },
			leaks => { backup => undef, faults => [], primary => {
				number => 2, total_weight => 3, tries => 1, conns => 0,
				refs => 0, zombies => 0, counted => 2, counted_weight => 3,
				counted_usable => 1,
			} },
		},
	} };
}

sub leaks {
	my $leaks;
	my $problems = sub ($change, %allow) {
		$t->write_file('status.json', JSON::PP::encode_json(status()));
		$leaks = Test::Nginx::Leaks->new(uri => '/upstreamstatus',
			port => 8080, seconds => 0.05, %allow);
		$leaks->baseline();

		my $data = status();
		$change->($data->{upstreams}{u}) if $change;
		$t->write_file('status.json', JSON::PP::encode_json($data));
		return join ' | ', $leaks->problems();
	};

	is($problems->(undef), '', 'no leak');

	for my $key (qw/number total_weight tries conns refs zombies counted
		counted_weight counted_usable/) {
		like($problems->(sub ($u) { $u->{leaks}{primary}{$key} = 7 }),
			qr/"u" primary: .*7/, "leak in $key");
	}

	is($problems->(sub ($u) { $u->{leaks}{faults} = [qw/order single/] }),
		'"u" faults are order single', 'faults');
	like($problems->(sub ($u) { delete $u->{leaks}{faults} }),
		qr/no list of faults/, 'no list of faults');
	like($problems->(sub ($u) { $u->{peers}[0]{active} = 1 }),
		qr/active is 1/, 'leak in active');
	like($problems->(sub ($u) { $u->{zone_memory}{pages}{free} = 8 }),
		qr/7 slab pages, 6 at/, 'leak of a page');
	is($problems->(sub ($u) { $u->{zone_memory}{pages}{free} = 8 },
		pages => { u => 1 }), '', 'page allowed');
	is($problems->(sub ($u) { $u->{leaks}{primary}{zombies} = 1 },
		zombies => 1), '', 'zombie allowed');
	like($problems->(sub ($u) { $u->{peers}[0]{backup} = JSON::PP::true }),
		qr/backup: peers, but no totals/, 'backup without totals');
	like($problems->(sub ($u) { $u->{dynamic} = JSON::PP::false }),
		qr/no dynamic upstream/, 'nothing to check');

	$t->write_file('status.json', 'x');
	like(join('', $leaks->problems()), qr/not JSON/, 'no status');
}

# Which of the ending assertions fail for which fault.
sub verdicts {
	my $status = '$t->write_file("status.json", q('
		. JSON::PP::encode_json(status()) . '));';
	my @rows = (
		[ 'a clean file', '', '' ],
		[ 'an alert', 'http_get("/");', 'no alert' ],
		[ 'a crit line', 'http_get("/crit");', 'no alert' ],
		[ 'an allowed crit line',
			'http_get("/crit"); $t->allow_log(qr/none.sock/);', '' ],
		[ 'a refused reload', '$t->write_file("nginx.conf", "daemon off; x y;'
			. '"); $t->reload() and die "not refused";', 'no alert' ],
		[ 'a killed worker', '$t->kill_worker();', '' ],
		[ 'a worker that died', 'my ($pid) = $t->workers(); kill KILL => $pid;'
			. ' $t->find_in_log(qr/exited on/);', 'no alert, no worker' ],
		[ 'a panic', '$t->write_file("error.log",'
			. ' "thread \'main\' panicked at src/a.rs:1:\n");', 'no sanitizer' ],
		[ 'a sanitizer report', '$t->write_file("sanitizer.1",'
			. ' "==1==ERROR: AddressSanitizer: x\n");', 'no sanitizer' ],
		[ 'a worker that does not end', 'my ($pid) = $t->workers();'
			. ' kill STOP => $pid; $t->allow_log(qr/./); $t->stop(seconds =>'
			. ' 0.5);', 'nginx ended' ],
		[ 'a dead master', 'kill KILL => $t->pid();'
			. ' $t->wait_for(sub { !alive($t->pid()) });',
			'no worker, nginx ended' ],
		[ 'leak keys', "$status \$t->leak_keys('/status', 8080);", '' ],
		[ 'a leak', "$status \$t->leak_keys('/status', 8080, seconds => 0.1);"
			. $status =~ s/"conns":0/"conns":1/r, 'leak keys' ],
	);

	for my $row (@rows) {
		my ($name, $body, $fails) = @$row;
		my ($code, $out) = Test::Nginx::Child->nginx($t, $body)->wait();
		my @failed = $out =~ /^not ok \d+ - (\w+ \w+)/mg;

		is(join(', ', @failed), $fails, "$name: assertions") or diag($out);
		is(!!$code, $fails ne '', "$name: exit code");
	}
}

# However a file ends, nothing of it stays.
sub endings {
	my @rows = (
		[ 'die', 'die "x";', 255 << 8 ],
		[ 'hang', 'alarm 1; sleep 1 while 1;', 124 << 8 ],
		[ 'interrupt', 'kill INT => $$; sleep 1 while 1;', 130 << 8 ],
		[ 'kill', 'kill KILL => $$;', 9 ],
	);

	for my $row (@rows) {
		my ($name, $body, $wanted) = @$row;
		my ($code, $out) = Test::Nginx::Child->nginx($t, $body)->wait();
		my ($master) = $out =~ /^# master (\d+)/m;

		is($code, $wanted, "$name: exit code") or diag($out);
		ok(wait_until(sub { !group($master) }, 5), "$name: no process left");
	}

	my $has = 'use Test::Nginx; Test::Nginx->new()->has(qw/http %s/);';
	my ($code, $out)
		= Test::Nginx::Child->start($t, sprintf $has, 'module')->wait();
	is($code, 0, 'skip: exit code');
	like($out, qr/\A1\.\.0 # SKIP TEST_NGINX_MODULE is not set$/m,
		'skip: reason');

	($code, $out)
		= Test::Nginx::Child->start($t, sprintf $has, 'proxi')->wait();
	ok($code && $out =~ /unknown capability "proxi"/, 'skip: not by a typo');
}

# Files that run side by side keep out of each other's way.
sub neighbours {
	my @runs = map {
		Test::Nginx::Child->nginx($t, '$t->reload() for 1 .. 3;')
	} 1 .. 4;

	is_deeply([ map { ($_->wait())[0] } @runs ], [ 0, 0, 0, 0 ],
		'side by side: all pass');

	my %ports = map { $_->output() =~ /port (\d+)/ ? ($1 => 1) : () } @runs;
	is(scalar keys %ports, 4, 'side by side: ports differ');
}
