#!/usr/bin/env perl

# Tests under load: the configuration is reloaded every half second while
# servers come, go and move.  A reload takes the file's servers; what was
# changed since it is there until the next one, no request fails, old workers
# end, and the master grows no larger.
#
# TEST_NGINX_LONG is the time in seconds.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Storable qw/nstore retrieve/;
use Test::More;

use Test::Nginx;
use Test::Nginx::Process qw/wait_until alive/;

my $long = $ENV{TEST_NGINX_LONG};
my $seconds = $long || 5;
my $timeout = 150 + 2 * $seconds;

# A reload in so many seconds.
use constant EVERY => 0.5;

# Reloads after which the master has what it needs, and bytes that it may take
# after them: the heap's own needs, not those of each reload.
use constant { WARM => 4, GROWTH => 600_000 };

my $t = Test::Nginx->new(timeout => $timeout)->has(qw/
	module http proxy upstream_zone upstream_keepalive upstream_least_conn
	upstream_hash upstream_random
/)->plan(12);

my %METHODS = (
	round_robin => '', least_conn => 'least_conn;',
	ring => 'hash $request_id consistent;', random => 'random;',
);
my @METHODS = sort keys %METHODS;

# What the test changes when all workers are of one configuration, and what a
# client changes at any time.
my @own = map { "127.0.1.$_:8083" } 1 .. 4;
my @any = map { "127.0.2.$_:8083" } 1 .. 4;

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
	map { my $method = $_; map { "upstream ${_}_$method { zone ${_}_$method "
		. "256k; $METHODS{$method} server 127.0.0.1:8081; "
		. "server 127.0.0.1:8082; keepalive 8; }\n" } qw/own any/ } @METHODS);

my $backends = Test::Nginx->servers($timeout, [
	[ '127.0.0.1:8081', '127.0.0.1:8082', @own, @any ], <<'CONF' ]);
        location / { return 200 "$server_addr"; }
        # Keeps old workers for a while.
        location ~ random { proxy_pass http://127.0.0.1:8086; }
CONF
$backends->backend('127.0.0.1:8086', delay => 0.1);

$backends->run();
$t->run();

my @uris = map { my $name = $_; map { "/u/${_}_$name" } qw/own any/ } @METHODS;
my $load = $t->load(uri => sub ($n) { $uris[$n % @uris] }, seconds => $timeout,
	concurrency => 12);
my $stop = $t->testdir() . '/stop';
my $file = $t->testdir() . '/client';
my $client = $t->run_daemon(sub { client($file, $stop) });

my %sum = map { $_ => 0 } qw/reloads changes/;
my (@refused, @lost, @survived, @faults, @backwards, @memory, %last);
my $begin = now();

while (now() < $begin + $seconds) {
	my $next = now() + EVERY;
	$t->reload();
	$sum{reloads}++;
	push @memory, memory();
	generation($next);
}

$t->write_file('stop', '');
wait_until(sub { !alive($client) }, 30) or die "the client does not end\n";
my $result = retrieve($file);
my $got = $load->finish(now => 1);

# Its own changes are dropped, too.
ok($t->reload(old_gone => 1, seconds => 30), 'old workers end');
my $grown = $memory[-1] - $memory[@memory > WARM ? WARM : 0];

($long ? \&diag : \&note)->("$sum{reloads} reloads, $got->{total} requests, "
	. "$sum{changes} changes between reloads, $result->{made} at any time, "
	. "$result->{busy} of them refused; the master's memory: from "
	. "$memory[@memory > WARM ? WARM : 0] to $memory[-1] bytes");

cmp_ok($sum{reloads}, '>', $seconds / 2, 'reloads');
is($got->{failed}, 0, 'no request failed')
	or diag(explain([ @$got{qw/by_status errors/} ]));
is_deeply(\@refused, [], 'no change between reloads was refused');
cmp_ok($sum{changes}, '>', 4 * $sum{reloads}, 'changes between reloads');
is_deeply(\@lost, [], 'each of them was there until the next reload');
is_deeply(\@survived, [], 'none of them after it');
is_deeply($result->{refused}, {}, 'changes at any time are made, or later');
cmp_ok($result->{made}, '>', 10 * $sum{reloads}, 'changes at any time');
is_deeply([ @faults, faults() ], [], 'no faults in the lists');
is_deeply(\@backwards, [], 'revisions do not go back');
cmp_ok($grown, '<', GROWTH, 'the master grows no larger');

# The zones of the upstreams are new.
$t->leak_keys('/status', port(8080));

sub upstreams () { return get_json('/status?verbose=')->{upstreams} }

# Bytes that a process has for itself.
sub memory () {
	open my $fh, '<', '/proc/' . $t->pid() . '/status' or die "status: $!\n";
	my ($kb) = map { /^RssAnon:\s+(\d+) kB/ ? $1 : () } <$fh>;
	return 1024 * $kb;
}

# All workers that serve are of one configuration until the next reload.
sub generation ($next) {
	my $now = upstreams();
	my %model;

	for my $name (map { "own_$_" } @METHODS) {
		$model{$name} = { map { ('127.0.0.1:' . port($_) => 1) } 8081, 8082 };
		push @survived, list($now, $name) if list($now, $name) ne said($model{$name});
		push @backwards, "$name: $now->{$name}{revision} after $last{$name}"
			if $now->{$name}{revision} < ($last{$name} // 0);
	}

	do {
		my $name = 'own_' . $METHODS[rand @METHODS];
		change($name, $model{$name}) or return;
	} while (now() < $next);

	my $then = upstreams();
	for my $name (sort keys %model) {
		push @lost, list($then, $name) . ', not ' . said($model{$name})
			if list($then, $name) ne said($model{$name});
		$last{$name} = $then->{$name}{revision};
	}
	push @faults, faults($then);
}

# One change, as the model then has it, too.
sub change ($name, $model) {
	my @servers = map { s/:(\d+)\z/':' . port($1)/er } @own;
	my $server = $servers[rand @servers];
	my ($free) = grep { !$model->{$_} } @servers;
	my $weight = (1, 2, 5)[rand 3];
	my $args = "add=&server=$server&weight=$weight";
	my $then = sub { $model->{$server} = $weight };

	if ($model->{$server} && rand() < 0.5) {
		$args = "remove=&server=$server";
		$then = sub { delete $model->{$server} };
	}
	elsif ($model->{$server} && $free) {
		my ($peer) = grep { $_->{name} eq $server }
			@{ get_json("/status?upstream=$name")->{upstreams}{$name}{peers} };
		if (!$peer) {
			push @lost, "$name: no $server";
			return 0;
		}
		$args = "id=$peer->{id}&server=$free";
		$then = sub { $model->{$free} = delete $model->{$server} };
	}
	elsif ($model->{$server}) {
		$args = "server=$server&weight=$weight";
	}

	my $r = http_get("/control?upstream=$name&$args");
	if ($r->status() != 200) {
		push @refused, "$name: $args: " . $r->told()
			. $r->error();
		return 0;
	}
	$then->();
	$sum{changes}++;

	return 1;
}

sub list ($all, $name) {
	return said({ map { $_->{name} => $_->{weight} } @{ $all->{$name}{peers} } });
}

sub said ($model) { return join ' ', map { "$_=$model->{$_}" } sort keys %$model }

sub faults ($all = upstreams()) {
	return map { my $name = $_; map { "$name: $_" }
		@{ $all->{$name}{leaks}{faults} } } sort keys %$all;
}

# From here on: the client's own process.  Whether a change comes before or
# after a reload it does not know.
sub client ($file, $stop) {
	my %result = (made => 0, busy => 0, refused => {});
	my @servers = map { s/:(\d+)\z/':' . port($1)/er } @any;

	srand $$;

	while (!-e $stop) {
		my $name = 'any_' . $METHODS[rand @METHODS];
		my $verb = (qw/add remove/)[rand 2];
		my $r = http_get(
			"/control?upstream=$name&$verb=&server=$servers[rand @servers]");

		if ($r->status() =~ /\A(?:200|304)\z/) {
			$result{made}++;
		}
		# A worker of before, which another one follows.
		elsif ($r->status() == 503 && $r->body() !~ /died/) {
			$result{busy}++;
		}
		else {
			$result{refused}{ $r->told() . $r->error() }++;
		}
	}

	nstore(\%result, "$file.new");
	rename "$file.new", $file or die "$file: $!\n";
}
