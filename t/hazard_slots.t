#!/usr/bin/env perl

# Tests under load: workers are killed at random while servers come into slots
# and leave them, before nginx 1.27.3.  What the dead had under way keeps its
# slots for ever; nothing else is lost, and others are filled as before.
#
# TEST_NGINX_LONG is the time in seconds.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;
use Test::Nginx::Process qw/wait_until alive/;

my $seconds = $ENV{TEST_NGINX_LONG} || 6;

my $t = Test::Nginx->new(timeout => 120 + 2 * $seconds)->has(qw/
	module http proxy upstream_zone upstream_keepalive upstream_least_conn
	upstream_hash upstream_random
/);

plan(skip_all => 'lists grow since nginx 1.27.3')
	if $t->has_version('1.27.3');

$t->plan(10);

my %METHODS = (
	round_robin => '', least_conn => 'least_conn;',
	hash => 'hash $request_id;', ring => 'hash $request_id consistent;',
	random => 'random;', random_two => 'random two;',
);
my @METHODS = sort keys %METHODS;

# Servers besides the one that is always there: they answer late, so that
# requests are under way when they leave.
my @SERVERS = map { "127.0.0.$_:8082" } 1 .. 20;

$t->write_file_expand('nginx.conf', <<'CONF', UPSTREAMS => join '',
%%TEST_GLOBALS%%
worker_processes 3;
events { worker_connections 1024; }
http {
    %%TEST_GLOBALS_HTTP%%
    access_log off;

    %%UPSTREAMS%%

    server {
        listen 127.0.0.1:8080;

        %%KEEPALIVE%%

        %%BY_NAME%%

        %%CONTROL%%
    }
}
CONF
	map { "upstream $_ { zone $_ 1m; $METHODS{$_} server 127.0.0.1:8081; "
		. "keepalive 16; }\n" } @METHODS);

my $backends = Test::Nginx->servers(120 + 2 * $seconds,
	[ ['127.0.0.1:8081'], 'location / { return 200 "$server_addr"; }' ],
	[ \@SERVERS, 'location / { proxy_pass http://127.0.0.1:8086; }' ]);
$backends->backend('127.0.0.1:8086', delay => 0.05, body => 'late');

# The master opens what a dead worker had locked, and says so.
$t->allow_log(qr/shared memory zone "[^"]+" was locked by \d+/);
$backends->run();
$t->run();

my $load = $t->load(uri => sub ($n) { "/u/$METHODS[$n % @METHODS]" },
	seconds => $seconds, concurrency => 24);
my $master = $t->pid();
my (%status, @faults);
my ($changes, $kills) = (0, 0);
my $works = 1;
my $next = now();

while ($works && $load->running()) {
	my $name = $METHODS[rand @METHODS];
	my $verb = rand() < 0.5 ? 'add' : 'remove';
	my $r = change($name, "$verb=&server=$SERVERS[rand @SERVERS]");

	# The worker that was asked may have died.
	$status{ $r->status() }++ if $r->status();
	$changes++ if $r->status() == 200;
	next if now() < $next;

	$next = now() + 0.05 + rand 0.1;
	my @workers = $t->workers();
	$works = killed($workers[rand @workers]);
	$kills++;
	push @faults, faults();
}

SKIP: {
	# nginx's own locks of the peers are not taken from the dead: whoever wants
	# one waits for ever.  The module cannot help it.
	if (!$works && peers_locked()) {
		diag("worker $kills of those killed died inside a lock of the peers");
		$t->allow_log(qr{exited on signal 9});
		$t->stop(slow => 1, seconds => 1);
		skip('a worker died inside a lock of the peers', 10);
	}

	ok($works, "status answers after each of $kills kills");
	ok(alive($master), 'master is alive');

	my $got = $load->finish();
	note("$kills workers killed; $changes changes; $got->{ok} requests, "
		. "$got->{failed} more cut off");
	is_deeply([ keys %{ $got->{by_status} } ], [200], 'no error replies')
		or diag(explain($got->{by_status}));
	cmp_ok($got->{failed}, '<=', 24 * $kills, 'requests failed in dead workers only');
	# 304 is that of a server that is there, or is not.
	is_deeply([ grep { !/\A(?:200|304)\z/ } keys %status ], [],
		'each change was made');
	cmp_ok($changes, '>', 10 * $seconds, 'changes');
	is_deeply(\@faults, [], 'no faults in the lists');
	cmp_ok(left_over(), '>', 0, 'requests of the dead keep slots');

	# Slots are left for all servers, and are filled again.
	my @refused = map { filled($_) } @METHODS;
	is_deeply(\@refused, [], 'slots are filled');
	is_deeply([ faults() ], [], 'no faults in the end');
}

sub change ($name, $args) {
	return control("/control?upstream=$name&$args");
}

sub faults () {
	my $status = get_json('/status?verbose=')->{upstreams};
	return map {
		my $name = $_;
		map { "$name: $_" } @{ $status->{$name}{leaks}{faults} };
	} @METHODS;
}

# Requests that are counted, though there are none.
sub left_over () {
	my $status = get_json('/status?verbose=')->{upstreams};
	my $sum = 0;
	for my $primary (map { $status->{$_}{leaks}{primary} } @METHODS) {
		$sum += $primary->{conns} + $primary->{zombie_conns};
	}
	return $sum;
}

# Kills a worker.  False if the others, or its successor, do not answer then.
sub killed ($pid) {
	my $ok = eval { $t->kill_worker($pid); get_json('/status'); 1 };
	diag($@) unless $ok;
	return $ok;
}

# Whether a new configuration, with zones of its own, serves where this one
# does not.
sub peers_locked () {
	$t->signal('HUP');
	return wait_until(sub {
		eval { get_json('/status', timeout => 2); 1 };
	}, 15);
}

# All servers leave, and others come, as many; what was refused, or does not
# serve.
sub filled ($name) {
	my @refused;

	for my $round (1 .. 3) {
		for my $verb (qw/remove add/) {
			push @refused, grep { !/\A(?:200|304) / } map {
				my $r = change($name, "$verb=&server=$_");
				$r->told();
			} @SERVERS;
		}

		# A new address is no old one that comes back.
		for my $server (map { "127.0.1.$_:8089" } 1 .. 10) {
			for my $verb (qw/add remove/) {
				my $r = change($name, "$verb=&server=$server"
					. ($verb eq 'add' ? '&down=' : ''));
				push @refused, $r->told()
					if $r->status() != 200;
			}
		}
	}

	my $got = burst(uri => "/u/$name", n => 60, concurrency => 6);
	push @refused, "$name: failed" if $got->{failed};
	push @refused, "$name: not from the slots" unless $got->{by_body}{late};

	return @refused;
}
