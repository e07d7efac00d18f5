#!/usr/bin/env perl

# Tests under load: workers are killed at random while servers change.  The
# master and the other workers go on, nothing stays locked, and what the
# clients were told is what the status shows and what the peers are.
#
# TEST_NGINX_LONG is the time in seconds.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;
use Test::Nginx::Churn qw/clients differences totals/;
use Test::Nginx::Process qw/wait_until alive/;

my $seconds = $ENV{TEST_NGINX_LONG} || 6;
my $timeout = 150 + $seconds;

my $t = Test::Nginx->new(timeout => $timeout)->has(qw/
	module http proxy upstream_zone upstream_keepalive upstream_least_conn
	upstream_hash upstream_random
/)->plan(12);

# Name, what stands in the block.
my @methods = (
	[ 'round_robin', '' ],
	[ 'least_conn', 'least_conn;' ],
	[ 'hash', 'hash $request_id;' ],
	[ 'random', 'random two;' ],
);
my @names = map { $_->[0] } @methods;

# The servers 8083 and 8084 come and go.
my $upstreams = join '', map { <<"BLOCK" } @methods;
    upstream $_->[0] {
        zone $_->[0] 64k;
        $_->[1]
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8083;
        server 127.0.0.1:8084;
        keepalive 16;
    }

BLOCK

$t->write_file_expand('nginx.conf', <<'CONF', UPSTREAMS => $upstreams);
%%TEST_GLOBALS%%
worker_processes 4;
events { worker_connections 1024; }
http {
    %%TEST_GLOBALS_HTTP%%
    access_log off;

%%UPSTREAMS%%
    server {
        listen 127.0.0.1:8080;

        %%KEEPALIVE%%

        location ~ ^/(?<group>\w+)/$ {
            proxy_pass http://$group;
        }

        location /worker { return 200 $pid; }
        %%CHURN%%
    }
}
CONF

my $backends = Test::Nginx->servers($timeout,
	[ [ map { "127.0.0.1:$_" } 8081 .. 8084 ],
		'location / { return 200 "$server_port\n"; }' ]);

my %values;

for my $method (@methods) {
	my %common = (fail_timeout => [ 1, 10 ], max_fails => [ 0, 1, 3 ],
		weight => [ 1, 2, 5, 20 ]);

	my %always = (%common, state => ['up']);
	my %any = (%common, state => [qw/up down drain/], max_conns => [ 0, 50 ]);

	$values{ $method->[0] } = {
		8081 => \%always, 8082 => \%always, 8083 => \%any, 8084 => \%any,
	};
}

# The master opens what a dead worker had locked, and says so.
$t->allow_log(qr/shared memory zone "[^"]+" was locked by \d+/);

$backends->run();
$t->run();

my $load = $t->load(uri => sub ($n) { "/$names[$n % @names]/" },
	seconds => $seconds, concurrency => 20);
my $churn = Test::Nginx::Churn->start(dir => $t->testdir(), seconds => $seconds,
	insist => 1, pause => 0, clients => [ clients(\%values) ]);

my $master = $t->pid();
my $kills = 0;
my $works = 1;

while ($works && $churn->running()) {
	my @workers = $t->workers();

	# At any point of what it does.
	select undef, undef, undef, rand 0.1;
	$works = killed($workers[ rand @workers ]);
	$kills++;
}

SKIP: {
	# nginx's own locks of the peers are not taken from the dead: whoever wants
	# one waits for ever.  The module cannot help it.
	if (!$works && peers_locked()) {
		diag("worker $kills of those killed died inside a lock of the peers");
		$t->allow_log(qr{exited on signal 9});
		$t->stop(slow => 1, seconds => 1);
		skip('a worker died inside a lock of the peers', 12);
	}

	ok($works, "status answers after each of $kills kills");

	my $changes = $churn->finish();
	my $got = $load->finish();

	# Who dies while it reads keeps out only who wants to write.
	if (grep { /died with the lock of the upstream/ } keys %{ $changes->{failed} }) {
		diag("one of $kills workers died inside a lock of the peers");
		$t->allow_log(qr{exited on signal 9});
		$t->stop(slow => 1, seconds => 1);
		skip('a worker died inside a lock of the peers', 11);
	}

	my $status = get_json('/upstreamstatus?verbose=');

	note("$kills workers killed; $got->{ok} requests, $got->{failed} more cut ",
		"off; $changes->{acked} changes, ",
		$changes->{sent} - $changes->{acked}, ' more without an answer');
	note('active requests that the dead took with them: ', join ', ', map {
		"$_ $status->{upstreams}{$_}{leaks}{primary}{conns}"
	} @names);

	ok(alive($master), 'master is alive');
	cmp_ok($kills, '>', $seconds, 'workers were killed');

	is_deeply([ keys %{ $got->{by_status} } ], [200], 'no error replies')
		or diag(explain($got->{by_status}));
	is_deeply([ grep { /timed out/ } keys %{ $got->{errors} } ], [],
		'each request ended');
	cmp_ok($got->{failed}, '<=', 20 * $kills,
		'requests failed in dead workers only')
		or diag(explain($got->{errors}));

	cmp_ok($changes->{acked}, '>', 20 * $seconds, 'changes');
	is_deeply([ grep { /^\d|timed out/ } keys %{ $changes->{failed} } ], [],
		'no change was refused');
	is_deeply([ @{ $changes->{wrong} }, @{ $changes->{backwards} },
		differences($status, $changes->{model}) ], [],
		'each change is there');
	is_deeply([ totals($status, @names) ], [], 'totals');

	is_deeply([ map { all_up($_) } @names ], [], 'control answers');

	# Active requests of the dead count for ever, so that other methods may
	# leave a server out.
	my $burst = burst(uri => sub ($n) { $n % 2 ? '/round_robin/' : '/hash/' },
		n => 400);
	is_deeply([ sort keys %{ $burst->{by_body} } ],
		[ map { port($_) . "\n" } 8081 .. 8084 ], 'all servers are used');
}

# Kills a worker.  False if the others, or its successor, do not answer then.
sub killed ($pid) {
	my $ok = eval { $t->kill_worker($pid); 1 };
	diag($@) unless $ok;

	return $ok && eval { get_json('/upstreamstatus'); 1 };
}

# Whether workers spin, and those of a new configuration, which has zones of
# its own for the peers but the same one of the module, do not.
sub peers_locked () {
	my %before = map { $_ => ticks($_) } $t->workers();
	select undef, undef, undef, 1;
	return 0 unless grep { ticks($_) > $before{$_} + 10 } keys %before;

	$t->signal('HUP');

	return wait_until(sub {
		eval { get_json('/upstreamstatus', timeout => 2); 1 };
	}, 15);
}

# Time that a process ran.
sub ticks ($pid) {
	open my $fh, '<', "/proc/$pid/stat" or return 0;
	my @words = split ' ', <$fh> =~ s/.*\) //r;

	return $words[11] + $words[12];
}

# Makes all servers usable; what is wrong with the replies.
sub all_up ($name) {
	return grep { $_ ne '200' } map {
		control("/upstreamcontrol?upstream=$name&server=127.0.0.1:$_"
			. '&up=&max_conns=0')->status();
	} 8081 .. 8084;
}
