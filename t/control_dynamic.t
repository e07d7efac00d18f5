#!/usr/bin/env perl

# Tests for upstream_control in the form of ngx_dynamic_upstream's /dynamic:
# its listings and texts, and that what was set has its effect.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()
	->has(qw/module http proxy upstream_zone unix ipv6/)
	->plan(102);

$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 4;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    proxy_connect_timeout 2s;

    upstream backends {
        zone zone_for_backends 64k;
        server 127.0.0.1:6001 down;
        server 127.0.0.1:8081;
        server [::1]:8082 weight=2 max_conns=9;
        server unix:%%TESTDIR%%/backend.sock fail_timeout=1m max_fails=0;
        server 127.0.0.1:8083 backup;
        server 127.0.0.1:8084 backup down;
    }

    # One connection at a time can be counted here.
    upstream two {
        zone two 64k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8083;
    }

    # The first server refuses connections.
    upstream broken {
        zone broken 64k;
        server 127.0.0.1:8089 max_fails=2 fail_timeout=60s;
        server 127.0.0.1:8083;
    }

    upstream last_resort {
        zone last_resort 64k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8083 backup;
    }

    server {
        listen 127.0.0.1:8080;

        location /dynamic {
            upstream_control;
        }

        location /status {
            upstream_status;
        }

        location ~ ^/(?<name>backends|two|broken|last_resort)$ {
            proxy_pass http://$name;
        }
    }

    # Each worker has its own listening socket, and says who it is.
    server {
        listen 127.0.0.1:8090 reuseport;

        location /dynamic {
            add_header X-Worker $pid;
            upstream_control;
        }

        location /status {
            add_header X-Worker $pid;
            upstream_status;
        }
    }
}
CONF

my $slow = $t->backend('127.0.0.1:8081');
$t->backend($_) for '[::1]:8082', 'unix:%%TESTDIR%%/backend.sock',
	'127.0.0.1:8083';

$t->run();
$t->leak_keys('/status', 8080);

listings();
parameters();
states();
log_lines();
no_changes();
verbs_by_address();
every_worker();
to_be_done();
weights();
max_conns();
failures();
backups();
draining();

sub dynamic ($args) { return control('/dynamic?' . $t->expand($args)) }

sub peers ($name) {
	return @{ get_json("/status?upstream=$name")->{upstreams}{$name}{peers} };
}

sub peer ($name, $i = 0) { return (peers($name))[$i] }

sub revision ($name) {
	return get_json("/status?upstream=$name")->{upstreams}{$name}{revision};
}

sub shares ($name, $n, %how) {
	my $got = burst(uri => "/$name", n => $n, concurrency => 1, %how);
	return { %{ $got->{by_body} },
		$got->{failed} ? (failed => $got->{failed}) : () };
}

# The verbose listing of "backends", with other parameters for one server.
sub verbose ($i = -1, $text = '', $flags = '') {
	my $path = $t->testdir() . '/backend.sock';
	my @rows = (
		[ '127.0.0.1:6001', 'weight=1 max_fails=1 fail_timeout=10 max_conns=0', ' down' ],
		[ '127.0.0.1:8081', 'weight=1 max_fails=1 fail_timeout=10 max_conns=0', '' ],
		[ '[::1]:8082', 'weight=2 max_fails=1 fail_timeout=10 max_conns=9', '' ],
		[ "unix:$path", 'weight=1 max_fails=0 fail_timeout=60 max_conns=0', '' ],
		[ '127.0.0.1:8083', 'weight=1 max_fails=1 fail_timeout=10 max_conns=0', ' backup' ],
		[ '127.0.0.1:8084', 'weight=1 max_fails=1 fail_timeout=10 max_conns=0', ' down backup' ],
	);
	@{ $rows[$i] }[1, 2] = ($text, $flags) if $i >= 0;

	return join '', map {
		"server $_->[0] addr=$_->[0] $_->[1] conns=0$_->[2];\n"
	} @rows;
}

sub plain () { return verbose() =~ s/ weight=.*?conns=0 conns=0| weight=.*?conns=\d+ conns=0//gr }

sub listings {
	my $r = dynamic('upstream=backends');
	is($r->status(), 200, 'listing');
	is($r->header('Content-Type'), 'text/plain', 'type');
	is($r->header('Cache-Control'), 'no-store', 'is not cached');
	is($r->body(), $t->expand(<<'TEXT') =~ s/:\d{5}/$t->logical($&)/egr,
server 127.0.0.1:6001 addr=127.0.0.1:6001 down;
server 127.0.0.1:8081 addr=127.0.0.1:8081;
server [::1]:8082 addr=[::1]:8082;
server unix:%%TESTDIR%%/backend.sock addr=unix:%%TESTDIR%%/backend.sock;
server 127.0.0.1:8083 addr=127.0.0.1:8083 backup;
server 127.0.0.1:8084 addr=127.0.0.1:8084 down backup;
TEXT
		'primaries, then backups');
	is(plain(), $r->body(), 'the same without the parameters');

	is(dynamic('upstream=zone_for_backends')->body(), $r->body(),
		'by the name of the zone');
	is(dynamic('upstream=backends&server=127.0.0.1:8081')->body(), $r->body(),
		'server= alone chooses nothing');
	is(dynamic("upstream=backends&$_")->body(), verbose(), $_)
		for qw/verbose= verbose verbose=1/;
	is(dynamic('upstream=backends&ipv6=')->body(), $r->body(),
		'ipv6= is taken');
}

sub parameters {
	my @rows = (
		# server, arguments, its place and parameters in the listing
		[ '127.0.0.1:8081', 'weight=10&max_fails=5&fail_timeout=5', 1,
			'weight=10 max_fails=5 fail_timeout=5 max_conns=0' ],
		[ '127.0.0.1:8081', 'max_conns=100', 1,
			'weight=10 max_fails=5 fail_timeout=5 max_conns=100' ],
		[ '127.0.0.1:8081', 'weight=65535&max_fails=1000000'
			. '&fail_timeout=31536000&max_conns=1000000', 1,
			'weight=65535 max_fails=1000000 fail_timeout=31536000 max_conns=1000000' ],
		[ '127.0.0.1:8081', 'weight=1&max_fails=0&fail_timeout=0&max_conns=0',
			1, 'weight=1 max_fails=0 fail_timeout=0 max_conns=0' ],
		[ '127.0.0.1:8081', 'fail_timeout=1m30s', 1,
			'weight=1 max_fails=0 fail_timeout=90 max_conns=0' ],
		[ '127.0.0.1:8081', 'max_fails=1&fail_timeout=10s', 1,
			'weight=1 max_fails=1 fail_timeout=10 max_conns=0' ],
		[ '[::1]:8082', 'weight=3', 2,
			'weight=3 max_fails=1 fail_timeout=10 max_conns=9' ],
		[ '%5B::1%5D:8082', 'weight=2', 2,
			'weight=2 max_fails=1 fail_timeout=10 max_conns=9' ],
		[ '[0:0::1]:%%PORT_8082%%', 'weight=7', 2,
			'weight=7 max_fails=1 fail_timeout=10 max_conns=9' ],
		[ '[::1]:8082', 'weight=2', 2,
			'weight=2 max_fails=1 fail_timeout=10 max_conns=9' ],
		[ 'unix:%%TESTDIR%%/backend.sock', 'max_fails=4', 3,
			'weight=1 max_fails=4 fail_timeout=60 max_conns=0' ],
		[ 'unix:%%TESTDIR%%/backend.sock', 'max_fails=0', 3,
			'weight=1 max_fails=0 fail_timeout=60 max_conns=0' ],
		[ '127.0.0.1:8083', 'max_conns=8', 4,
			'weight=1 max_fails=1 fail_timeout=10 max_conns=8', ' backup' ],
		[ '127.0.0.1:8083', 'max_conns=0&backup', 4, undef ],
		[ '127.0.0.1:8083', 'max_conns=0', 4,
			'weight=1 max_fails=1 fail_timeout=10 max_conns=0', ' backup' ],
		[ '127.0.0.1:6001', 'max_conns=3', 0,
			'weight=1 max_fails=1 fail_timeout=10 max_conns=3', ' down' ],
		[ '127.0.0.1:6001', 'max_conns=0', 0,
			'weight=1 max_fails=1 fail_timeout=10 max_conns=0', ' down' ],
	);

	for my $row (@rows) {
		my ($server, $args, $i, $text, $flags) = @$row;
		my $r = dynamic("upstream=backends&server=$server&$args");
		is($r->told(), defined $text
			? '200 ' . verbose($i, $text, $flags // '')
			: '400 backup: only for a server that is added',
			"$server: $args");
	}
}

sub states {
	my $default = 'weight=1 max_fails=1 fail_timeout=10 max_conns=0';

	is(dynamic('upstream=backends&server=127.0.0.1:8081&down=')->body(),
		verbose(1, $default, ' down'), 'down');
	is(dynamic('upstream=backends')->body(),
		plain() =~ s/(8081 addr=\S+8081)/$1 down/r, 'plain listing');
	is(dynamic('upstream=backends&server=127.0.0.1:8081&drain=')->body(),
		verbose(1, $default, ' draining'), 'drain');
	is(peer('backends', 1)->{state}, 'draining', 'draining in the status');
	is(dynamic('upstream=backends&server=127.0.0.1:8081&up=')->body(),
		verbose(), 'up');
	is(dynamic('upstream=backends&server=127.0.0.1:6001&up=')->body(),
		verbose(0, $default, ''), 'up, against the configuration');
	is(dynamic('upstream=backends&server=127.0.0.1:6001&down=')->body(),
		verbose(), 'down again');
	is(dynamic('upstream=backends&server=127.0.0.1:8081&down=&weight=5')
		->body(), verbose(1, $default =~ s/1/5/r, ' down'), 'both at once');
	is(dynamic('upstream=backends&server=127.0.0.1:8081&up&weight=1')->body(),
		verbose(), 'and back');
}

# One line for a change, and the revision that it made.
sub log_lines {
	my @rows = (
		[ 'server=127.0.0.1:8081&down=', 'state up -> down' ],
		[ 'server=127.0.0.1:8081&drain=', 'state down -> draining' ],
		[ 'server=127.0.0.1:8081&up=&max_conns=5',
			'state draining -> up, max_conns 0 -> 5' ],
		[ 'server=127.0.0.1:8081&weight=2&max_conns=0&max_fails=3'
			. '&fail_timeout=1m&note=a%20%22b%22',
			'weight 1 -> 2, max_conns 5 -> 0, max_fails 1 -> 3, fail_timeout 10 -> 60',
			', note: "a \\"b\\""' ],
		[ 'server=127.0.0.1:8081&weight=1&max_fails=1&fail_timeout=10',
			'weight 2 -> 1, max_fails 3 -> 1, fail_timeout 60 -> 10' ],
	);

	for my $row (@rows) {
		my ($args, $changes, $note) = (@$row, '');
		my $mark = $t->log_mark();
		my $revision = revision('backends') + 1;

		dynamic("upstream=zone_for_backends&$args");
		my @lines = map { $t->logical($_) } $t->grep_log(qr/\[notice\]/, $mark);
		is(@lines, 1, "$args: one line");
		like($lines[0], qr/ upstream "backends" server "127.0.0.1:8081": \Q$changes, revision $revision$note, client: 127.0.0.1, server: /,
			"$args: its words");
	}
}

sub no_changes {
	my $revision = revision('backends');
	my $mark = $t->log_mark();

	dynamic("upstream=backends&$_") for 'server=127.0.0.1:8081&up=',
		'server=127.0.0.1:6001&down=', 'server=[::1]:8082&weight=2&max_conns=9',
		'server=127.0.0.1:8081&weight=1&note=nothing', 'verbose=';

	is(revision('backends'), $revision, 'no revision for what was so already');
	is(scalar $t->grep_log(qr/\[notice\]/, $mark), 0, 'no line either');

	# A new note on the same state is news.
	dynamic('upstream=backends&server=127.0.0.1:6001&down=&note=replaced');
	is(revision('backends'), $revision + 1, 'a note is a change');
	is(peer('backends')->{reason}{note}, 'replaced', 'which is shown');
}

# Each verb reaches each kind of address, in every worker.
sub verbs_by_address {
	my %bodies = ('127.0.0.1:8081' => 8081, '[::1]:8082' => 8082,
		'unix:%%TESTDIR%%/backend.sock' => 'backend.sock');

	for my $server (sort keys %bodies) {
		for my $verb (qw/down drain/) {
			dynamic("upstream=backends&server=$server&$verb=");
			my $got = burst(uri => '/backends', n => 40);
			is_deeply([ $got->{failed}, sort keys %{ $got->{by_body} } ],
				[ 0, sort grep { $_ ne $bodies{$server} } values %bodies ],
				"$verb: $server");
			dynamic("upstream=backends&server=$server&up=");
		}
	}

	my $got = burst(uri => '/backends', n => 80, concurrency => 1);
	is_deeply($got->{by_body},
		{ 8081 => 20, 8082 => 40, 'backend.sock' => 20 }, 'all are up');
}

# Whichever worker makes a change, all of them show it when the reply is here.
sub every_worker {
	my (%makers, %readers);
	my $late = 0;

	for my $i (1 .. 100) {
		my $r = control("/dynamic?upstream=two&peer=0&max_conns=$i&format=json",
			port => 8090);
		my $revision = $r->json()->{revision};
		$makers{ $r->header('X-Worker') } = 1;

		for (1 .. 4) {
			$r = http_get('/status?upstream=two', port => 8090);
			$readers{ $r->header('X-Worker') } = 1;
			my $two = $r->json()->{upstreams}{two};
			$late++ if $two->{peers}[0]{max_conns} != $i
				|| $two->{revision} != $revision;
		}
	}

	is(keys %makers, 4, 'every worker made changes');
	is(keys %readers, 4, 'every worker was asked');
	is($late, 0, 'none was late');
	is(revision('two'), 100, 'each change was counted');

	# Several at once: none gets lost, and each is counted.
	my $got = burst(port => 8090, n => 200, concurrency => 20, uri => sub ($i) {
		my $n = $i + 1;
		return "/dynamic?upstream=two&peer=@{[ $i % 2 ]}&max_fails=@{[ 10 + $n ]}";
	});
	is($got->{ok}, 200, 'changes at once');
	is(revision('two'), 300, 'each was counted');
	dynamic("upstream=two&peer=$_&max_fails=1&max_conns=0") for 0, 1;
}

# What comes later says so, rather than doing nothing.
sub to_be_done {
	my $args = 'stream=&server=127.0.0.1:8081&down=';
	my $r = dynamic("upstream=backends&$args");

	is($r->told(), '501 stream: not yet supported', $args);
	is(dynamic('upstream=backends')->body(), plain(), 'nothing was done');
}

# Round robin is exact: what the weights say, over so many requests.
sub weights {
	is_deeply(shares('two', 4), { 8081 => 2, 8083 => 2 }, 'weights 1 and 1');
	dynamic('upstream=two&server=127.0.0.1:8081&weight=3');
	is_deeply(shares('two', 4), { 8081 => 3, 8083 => 1 }, 'weights 3 and 1');
	is_deeply(shares('two', 80), { 8081 => 60, 8083 => 20 }, 'in every worker');
	dynamic('upstream=two&server=127.0.0.1:8083&weight=3');
	is_deeply(shares('two', 8), { 8081 => 4, 8083 => 4 }, 'weights 3 and 3');
	dynamic("upstream=two&servers=127.0.0.1:8081,127.0.0.1:8083&weight=1");
	is_deeply(shares('two', 8), { 8081 => 4, 8083 => 4 }, 'weights as before');
}

# The limit is counted in the zone, hence over all workers.
sub max_conns {
	dynamic('upstream=two&server=127.0.0.1:8081&max_conns=1');
	$slow->set(delay => 2);

	# At the slow server there is one of these at most.
	my @handles;
	$t->wait_for(sub {
		push @handles, http_start(uri => '/two');
		return peer('two')->{active};
	}, 5, 'a connection to the slow server');

	is_deeply(shares('two', 20, concurrency => 10), { 8083 => 20 },
		'full with one connection');
	dynamic('upstream=two&server=127.0.0.1:8083&down=');
	is(http_get('/two')->status(), 502, 'no server has room');
	dynamic('upstream=two&server=127.0.0.1:8083&up=');

	$slow->set(delay => 0);
	is(scalar(grep { http_finish($_)->body() eq '8081' } @handles), 1,
		'the slow reply');
	$t->wait_for(sub { !peer('two')->{active} }, 5, 'no connection');
	is_deeply(shares('two', 8), { 8081 => 4, 8083 => 4 }, 'room again');
	dynamic('upstream=two&server=127.0.0.1:8081&max_conns=0');
}

sub failures {
	my $server = 'upstream=broken&server=127.0.0.1:8089';
	my $failed = sub ($n) {
		my $mark = $t->log_mark();
		is_deeply(shares('broken', $n), { 8083 => $n }, 'requests go on');
		return scalar $t->grep_log(qr/connect\(\) failed.*\/broken/, $mark);
	};

	is($failed->(8), 2, 'two failures');
	my $peer = peer('broken');
	is_deeply([ @$peer{qw/state fails/}, !!$peer->{last_failure} ],
		[ 'unavail', 2, 1 ], 'unavailable after them');

	# It is up already, and yet its failures are forgotten.
	my $revision = revision('broken');
	dynamic("$server&up=");
	$peer = peer('broken');
	is_deeply([ @$peer{qw/state fails effective_weight/} ], [ 'up', 0, 1 ],
		'up forgets failures');
	is(revision('broken'), $revision, 'which is no change of what is wanted');
	is($failed->(8), 2, 'and failures are counted anew');

	dynamic("$server&max_fails=4");
	is(peer('broken')->{state}, 'up', 'two failures are less than four');
	is($failed->(8), 2, 'so that there may be two more');

	dynamic("$server&max_fails=0");
	is(peer('broken')->{state}, 'up', 'max_fails=0');
	is($failed->(10), 5, 'is never unavailable');

	dynamic("$server&max_fails=1&fail_timeout=1");
	$failed->(4);
	my $is = sub { join ' ', peer('broken')->{state}, peer('broken')->{reason}{by} };
	is($is->(), 'unavail failures', 'left alone for a second');
	ok($t->wait_for(sub { $is->() eq 'unavail retry' }, 5, 'a trial'),
		'and then it awaits its trial');
	my $text = http_get('/status?format=text&upstream=broken');
	like($text->body(), qr/ unavail .* retry: fail_timeout is over/, 'in text');
	like(http_get('/status?format=prometheus&upstream=broken')->body(),
		qr/_peer_up\{[^}]*\} 0$/m, 'in metrics');
}

# Backups serve when the primaries are down, and only then.
sub backups {
	is_deeply(shares('last_resort', 8), { 8081 => 8 }, 'primary');
	dynamic('upstream=last_resort&server=127.0.0.1:8081&down=');
	is_deeply(shares('last_resort', 8), { 8083 => 8 }, 'backup');
	dynamic('upstream=last_resort&server=127.0.0.1:8083&down=');
	is_deeply(shares('last_resort', 4), { failed => 4 }, 'all are down');
	dynamic('upstream=last_resort&server=127.0.0.1:8083&up=');
	is_deeply(shares('last_resort', 8), { 8083 => 8 }, 'backup is up');
	dynamic('upstream=last_resort&server=127.0.0.1:8081&up=');
	is_deeply(shares('last_resort', 8), { 8081 => 8 }, 'primary is up');
}

# What is under way on a server goes on when it is drained, or taken down.
sub draining {
	for my $verb (qw/drain down/) {
		$slow->set(delay => 1);
		# A status in between may be too early to show one: all are kept.
		my @handles;
		$t->wait_for(sub {
			push @handles, http_start(uri => '/two');
			return peer('two')->{active};
		}, 5, 'a request under way');

		dynamic("upstream=two&server=127.0.0.1:8081&$verb=");
		$slow->set(delay => 0);
		is_deeply(shares('two', 8), { 8083 => 8 }, "$verb: no new ones");
		my @at_slow = grep { http_finish($_)->body() eq '8081' } @handles;
		ok(@at_slow, "$verb: the old one goes on");
		$t->wait_for(sub { !peer('two')->{active} }, 5, 'it ends');
		dynamic('upstream=two&server=127.0.0.1:8081&up=');
	}
}
