#!/usr/bin/env perl

# Tests for the metrics of upstream_status: what there is, that Prometheus's own
# parser reads it, and that names which want to be something else do not get
# their way.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP ();
use Test::More;

use Test::Nginx;
use Test::Nginx::Process qw/spawn alive reap wait_until/;

# Another Python than the system's, which may come first, does not see the
# system's packages.
my ($python) = grep {
	!system("$_ -c 'import prometheus_client.parser' 2>/dev/null");
} qw{python3 /usr/bin/python3};
plan(skip_all => 'no prometheus_client for python3') unless $python;

my $t = Test::Nginx->new()
	->has(qw/module http proxy upstream_zone upstream_least_conn/)
	->plan(43);

$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream all {
        zone all_zone 64k;
        server 127.0.0.1:8081 weight=5 max_conns=7 max_fails=3 fail_timeout=20s;
        server 127.0.0.1:8082 down;
        server 127.0.0.1:8083;
        server 127.0.0.1:8081 backup;
    }

    upstream fails {
        zone fails_zone 64k;
        server 127.0.0.1:8084;
        server 127.0.0.1:8081;
        least_conn;
    }

    # The same server twice, in a zone that is another's, too.
    upstream twice {
        zone fails_zone;
        server 127.0.0.1:8085;
        server 127.0.0.1:8085;
    }

    upstream composed {
        pool all priority=3;
        pool fails priority=7;
    }

    upstream static {
        server 127.0.0.1:8085;
        server 127.0.0.1:8085;
    }

    upstream "a\"b\\c{x=\"y\"} 1
# TYPE" {
        zone odd 64k;
        server 127.0.0.1:8085;
    }

    server {
        listen 127.0.0.1:8080;
        location /status { upstream_status; }
        location /control { upstream_control; }
        location /all { proxy_pass http://all; }
        location /fails { proxy_pass http://fails; }
    }
}
CONF

# Reads metrics, and writes families as JSON: name, type, help, samples.
$t->write_file('parse.py', <<'PYTHON');
import json, sys
from prometheus_client.parser import text_string_to_metric_families
families = text_string_to_metric_families(open(sys.argv[1]).read())
print(json.dumps([[f.name, f.type, f.documentation,
    [[s.name, s.labels, s.value] for s in f.samples]] for f in families]))
PYTHON

my $one = $t->backend('127.0.0.1:8081');

$t->run();
$t->leak_keys('/status', 8080);

http_get('/fails') for 1, 2;
control('/control?upstream=all&id=2&drain=');

my $r = http_get('/status?format=prometheus');
my $families = parse($r->body());

form();
structure();
values_of_peers();
values_of_upstreams();
values_of_pools();
hostile();
chosen();
changing();

sub parse ($text) {
	$t->write_file('metrics', $text);
	my $out = $t->testdir() . '/parsed';
	unlink $out;
	my $pid = spawn(out => $out, exec => [ $python,
		$t->testdir() . '/parse.py', $t->testdir() . '/metrics' ]);
	wait_until(sub { !alive($pid) }, 30) or die "the parser does not end\n";
	die "the parser failed: ", $t->read_file('parsed') if reap($pid);

	return JSON::PP->new->utf8->decode($t->read_file('parsed'));
}

# Values of a metric's samples whose labels are these, among others.
sub samples ($name, %labels) {
	my ($family) = grep { $_->[0] eq "nginx_upstream_$name" } @$families;
	return map { $_->[2] } grep {
		my $found = $_->[1];
		!grep { ($found->{$_} // '') ne $labels{$_} } keys %labels;
	} @{ $family->[3] };
}

sub form {
	is($r->status(), 200, 'metrics');
	is($r->header('Content-Type'), 'text/plain; version=0.0.4; charset=utf-8',
		'their type');
	is($r->header('Cache-Control'), 'no-store', 'are not cached');
	like($r->body(), qr/\n\z/, 'end with a line end');
}

sub structure {
	is_deeply([ map { $_->[0] =~ s/\Anginx_upstream_//r } @$families ], [ qw/
		info revision pool_active pool_usable pool_priority
		pools_since_timestamp_seconds peers zone_size_bytes zone_memory_bytes
		peer_state peer_up peer_active_connections peer_max_connections
		peer_weight peer_fails peer_max_fails peer_fail_timeout_seconds
		peer_last_failure_timestamp_seconds
	/ ], 'all metrics, each in one piece');
	is_deeply([ grep { $_->[1] ne 'gauge' } @$families ], [], 'all are gauges');
	is_deeply([ grep { $_->[2] !~ /\A[A-Z1].*\.\z/ } @$families ], [],
		'all say what they are');

	my $body = $r->body();
	is(() = $body =~ /^# HELP /mg, @$families, 'HELP once each');
	is(() = $body =~ /^# TYPE /mg, @$families, 'TYPE once each');

	my %seen;
	my $json = JSON::PP->new->canonical;
	is_deeply([ grep { $seen{ $json->encode([ @$_[0, 1] ]) }++ }
		map { @{ $_->[3] } } @$families ], [], 'no series twice');

	my ($peer) = grep { $_->[0] eq 'nginx_upstream_peer_up' } @$families;
	is_deeply([ sort keys %{ $peer->[3][0][1] } ],
		[qw/address backup id server upstream/], 'labels of a peer');
	is($peer->[3][0][1]{server}, '127.0.0.1:' . port(8081), 'its server');
}

sub values_of_peers {
	my @up = map { samples('peer_up', upstream => 'all', id => $_) } 0 .. 3;
	is("@up", '1 0 0 1', 'up');

	for my $row ([ 0, 'up' ], [ 1, 'down' ], [ 2, 'draining' ], [ 3, 'up' ]) {
		my ($id, $state) = @$row;
		is_deeply([ map { samples('peer_state', upstream => 'all', id => $id,
			state => $_) } qw/up down draining unavail/ ],
			[ map { $_ eq $state ? 1 : 0 } qw/up down draining unavail/ ],
			"server $id is $state and nothing else");
	}

	my %first = (upstream => 'all', id => 0);
	is_deeply([ map { samples("peer_$_", %first) } qw/
		weight max_connections max_fails fail_timeout_seconds
		active_connections fails
	/ ], [ 5, 7, 3, 20, 0, 0 ], 'parameters and counters');
	is(samples('peer_up', backup => 'true'), 1, 'one backup');

	my %failed = (upstream => 'fails', id => 0);
	is((samples('peer_fails', %failed))[0], 1, 'a failure');
	is((samples('peer_state', %failed, state => 'unavail'))[0], 1, 'unavail');
	my @times = samples('peer_last_failure_timestamp_seconds');
	is(@times, 1, 'one server has failed');
	cmp_ok(abs($times[0] - time), '<', 60, 'when it did');
}

sub values_of_upstreams {
	is_deeply([ samples('revision', upstream => 'all') ], [1], 'revision');
	is_deeply([ samples('peers', upstream => 'all', backup => 'false',
		state => $_) ], [1], "one $_") for qw/up down draining/;
	is_deeply([ samples('info', upstream => 'fails', zone => 'fails_zone',
		method => 'least_conn', dynamic => 'true') ], [1], 'info');
	is_deeply([ samples('info', upstream => 'static', zone => '',
		dynamic => 'false') ], [1], 'info of a static one');
	is_deeply([ samples('peer_active_connections', upstream => 'static') ], [],
		'each worker has its own connections to static ones');
	is_deeply([ samples('zone_size_bytes', zone => 'fails_zone') ], [65_536],
		'a zone that two share is there once');
	is(scalar(samples('peer_weight', upstream => 'twice')), 2,
		'the same server twice');
}

sub values_of_pools {
	my %pool = (upstream => 'composed');
	is_deeply([ map { samples("pool_$_", %pool, pool => 'all') }
		qw/active usable priority/ ], [ 1, 1, 3 ], 'the pool that is active');
	is_deeply([ map { samples("pool_$_", %pool, pool => 'fails') }
		qw/active usable priority/ ], [ 0, 1, 7 ], 'and the next');
	is(scalar(samples('pool_active')), 2, 'no other upstream has pools');
	my ($since) = samples('pools_since_timestamp_seconds', %pool);
	cmp_ok(abs($since - time), '<', 60, 'since when');
	is_deeply([ samples('info', %pool, zone => '', method => 'pools',
		dynamic => 'false') ], [1], 'info of one that has pools');
	is_deeply([ samples('peers', %pool), samples('peer_up', %pool) ], [],
		'which has no servers');
}

sub hostile {
	my $name = qq{a"b\\c\{x="y"\} 1\n# TYPE};
	is_deeply([ samples('info', upstream => $name) ], [1], 'a hostile name');
}

sub chosen {
	my $type = sub ($accept) {
		return http_get('/status', headers => { Accept => $accept })
			->header('Content-Type');
	};

	like($type->($_), qr/version=0\.0\.4/, "Accept: $_") for
		'application/openmetrics-text;version=1.0.0;q=0.5,'
			. 'text/plain;version=0.0.4;q=0.3,*/*;q=0.2',
		'text/plain;version=0.0.4';
}

# A server that is taken down while it is used, and another configuration.
sub changing {
	$one->set(delay => 1);
	my $handle = http_start(uri => '/all');
	$t->wait_for(sub {
		$families = parse(http_get('/status?format=prometheus')->body());
		(samples('peer_active_connections', upstream => 'all', id => 0))[0];
	}, 5, 'the request is under way');
	control('/control?upstream=all&id=0&down=');
	$families = parse(http_get('/status?format=prometheus')->body());
	is((samples('peer_state', upstream => 'all', id => 0, state => 'down'))[0],
		1, 'down while it is used');
	$one->set(delay => 0);
	http_finish($handle);

	$t->reload();
	$families = parse(http_get('/status?format=prometheus')->body());
	is(scalar(samples('peer_up', upstream => 'all')), 4, 'after a reload');
}
