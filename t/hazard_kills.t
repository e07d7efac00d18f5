#!/usr/bin/env perl

# Tests under load: workers are killed at random while servers come, go, move
# and change, under each balancing method.  The master and the other workers go
# on, and at the end the lists are what the changes come to that clients were
# told of.
#
# A worker may die with a lock of nginx's own, which nobody takes from the dead:
# that is counted apart, and a reload must be the end of it.
#
# TEST_NGINX_LONG: 200 workers are killed, not 15.  TEST_NGINX_KILLS: so many.
# TEST_NGINX_METHODS: a list of methods to try.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Storable qw/nstore retrieve/;
use List::Util qw/max/;
use Test::More;

use Test::Nginx;
use Test::Nginx::Churn qw/totals/;
use Test::Nginx::Process qw/wait_until alive/;

my $long = $ENV{TEST_NGINX_LONG};
my $wanted = $ENV{TEST_NGINX_KILLS} || ($long ? 200 : 15);
my $timeout = 120 + 8 * $wanted;

# Requests under way, and clients that make changes.
use constant { CONCURRENCY => 24, CLIENTS => 2 };

# A change that is not answered is asked for again so many times.
use constant ATTEMPTS => 50;

# Of each client: the second answers late, and the rest at once.
use constant OWN => 5;

my $t = Test::Nginx->new(timeout => $timeout)->has(qw/
	module http proxy upstream_zone upstream_keepalive upstream_least_conn
	upstream_hash upstream_random
/);

my %METHODS = (
	round_robin => '', least_conn => 'least_conn;',
	hash => 'hash $request_id;', ring => 'hash $request_id consistent;',
	random_two => 'random two;',
	($t->has_module_built('upstream_least_time')
		? (least_time => 'least_time header;') : ()),
	($t->has_module_built('sticky') ? (sticky => 'sticky cookie route;') : ()),
);
my @METHODS = $ENV{TEST_NGINX_METHODS}
	? grep { defined $METHODS{$_} } split /,/, $ENV{TEST_NGINX_METHODS}
	: sort keys %METHODS;

$t->plan(13);

my @own = map { my $client = $_; [
	map { "127.0.1.$client$_:" . ($_ == 2 ? 8084 : 8083) } 1 .. OWN
] } 1 .. CLIENTS;

$t->write_file_expand('nginx.conf', <<'CONF', UPSTREAMS => join '',
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

        %%BY_NAME%%

        %%CONTROL%%
    }
}
CONF
	map { "upstream $_ { zone $_ 1m; $METHODS{$_} server 127.0.0.1:8081; "
		. "server 127.0.0.1:8082; keepalive 16; }\n" } @METHODS);

my $backends = Test::Nginx->servers($timeout,
	[ [ '127.0.0.1:8081', '127.0.0.1:8082', own(8083) ],
		'location / { return 200 "$server_addr"; }' ],
	[ [ own(8084) ], 'location / { proxy_pass http://127.0.0.1:8086; }' ]);
$backends->backend('127.0.0.1:8086', delay => 0.05, body => 'late');

# The master opens what a dead worker had locked, and says so.
$t->allow_log(qr/shared memory zone "[^"]+" was locked by \d+/);
$backends->run();
$t->run();

my $master = $t->pid();
my (%sum, @faults, @lists, @leaks, @recovered);
@sum{qw/kills locked ok failed late acked sent left/} = (0) x 8;

# A round that ends with a lock that died tells nothing of the lists: there is
# one at least that ends well.
while ($sum{kills} < $wanted
	|| !$sum{status} && $sum{kills} < 6 * $wanted)
{
	kills($sum{locked});
}

ok(alive($master), 'master is alive');
($long ? \&diag : \&note)->("$sum{kills} workers killed; $sum{ok} requests, "
	. "$sum{failed} more cut off; $sum{acked} changes, "
	. ($sum{sent} - $sum{acked}) . ' more without an answer; the dead left '
	. "$sum{left} requests counted");
diag("$sum{locked} of the $sum{kills} that were killed died inside a lock of "
	. 'the peers, and a reload was needed') if $sum{locked};

is_deeply([ keys %{ $sum{status} // {} } ], [200], 'no error replies')
	or diag(explain($sum{status}));
is($sum{late}, 0, 'each request ended');
cmp_ok($sum{failed}, '<=', CONCURRENCY * $sum{kills},
	'requests failed in dead workers only');
is_deeply($sum{refused} // {}, {}, 'no change was refused');
cmp_ok($sum{acked}, '>', 2 * $sum{kills}, 'changes');
is_deeply(\@lists, [], 'the lists are what the changes come to');
is_deeply(\@faults, [], 'no faults in the lists');
is_deeply(\@leaks, [], 'no more is left than what the dead had under way');
is(scalar @recovered, $sum{locked}, 'a reload recovers from what was locked');

is_deeply([ map { serves($_) } @METHODS ], [], 'each upstream serves');
is_deeply([ map { changes($_) } @METHODS ], [], 'each upstream can be changed');
is_deeply([ totals(get_json('/status?verbose='), @METHODS) ], [], 'totals');

sub own ($port) { return grep { /:$port\z/ } map { @$_ } @own }

sub upstreams () { return get_json('/status?verbose=')->{upstreams} }

# Workers are killed until there were enough, or until one took a lock with it.
sub kills ($round) {
	restore();
	my $before = upstreams();
	my $stop = $t->testdir() . "/stop-$round";
	my @files = map { $t->testdir() . "/client-$round-$_" } 0 .. CLIENTS - 1;
	my @pids = map { my $client = $_; $t->run_daemon(sub {
		client($client, $files[$client], $stop);
	}) } 0 .. CLIENTS - 1;
	my $load = $t->load(uri => sub ($n) { "/u/$METHODS[$n % @METHODS]" },
		seconds => $timeout, concurrency => CONCURRENCY);
	my $kills = 0;
	my $works = 1;
	my $most = max(3, $wanted - $sum{kills});

	while ($works && $kills < $most) {
		my @workers = $t->workers();

		# At any point of what it does.
		select undef, undef, undef, 0.02 + rand 0.1;
		$works = killed($workers[ rand @workers ]) && !-e "$stop.locked";
		$kills++;
	}

	# The last one may have left a lock that nobody has wanted yet.
	for (1 .. 8) {
		select undef, undef, undef, 0.05;
		$works &&= !-e "$stop.locked" && answers();
	}

	$t->write_file("stop-$round", '');
	my $locked = !$works;
	recover() if $locked;

	my $got = $load->finish(now => 1);
	wait_until(sub { !grep { alive($_) } @pids }, 30)
		or die "clients do not end\n";
	my @results = map { retrieve($_) } @files;

	$sum{kills} += $kills;
	$sum{$_} += $got->{$_} for qw/ok failed/;
	for my $result (@results) {
		$sum{$_} += $result->{$_} for qw/acked sent/;
		$sum{refused}{$_}++ for $locked ? () : @{ $result->{refused} };
	}

	# What came of requests that waited for the lock, nobody can say.
	if ($locked) {
		$sum{locked}++;
		$sum{failed} -= $got->{failed};
		return;
	}

	$sum{late} += grep { /timed out/ } keys %{ $got->{errors} };
	$sum{status}{$_} += $got->{by_status}{$_} for keys %{ $got->{by_status} };

	my $after = upstreams();
	push @lists, differences($after, @results), revisions($before, $after, @results);
	push @faults, map { my $name = $_; map { "$name: $_" }
		@{ $after->{$name}{leaks}{faults} } } @METHODS;
	left($after, $got->{failed} + $kills);
}

# Kills a worker.  False if the others, or its successor, do not answer then.
sub killed ($pid) {
	return eval { $t->kill_worker($pid); 1 } && answers();
}

sub answers () { return eval { get_json('/status', timeout => 10); 1 } }

# After a reload, which has zones of its own for the peers.  An old worker that
# waits may hold the lock of the module's zone, which is the same one: then the
# status asks for another reload.
sub recover () {
	my $killed = eval { $t->recover() };
	diag($@), return unless defined $killed;

	my $again = static('reload nginx once more');
	eval { $t->recover() } if $again;
	diag("a worker died inside a lock of the peers: $killed old ones had to be "
		. 'killed after the reload' . ($again ? ', and another was needed' : ''));
	push @recovered, $killed if answers() && !static('');
}

# How many upstreams cannot be changed, for this reason.
sub static ($reason) {
	my $all = eval { upstreams() } // {};
	return scalar grep { !$_->{dynamic} && $_->{reason} =~ /$reason/ }
		values %$all;
}

# Removes the servers of clients, which are not in the file.  A change that waited
# for a lock may be made after the reload.
sub restore () {
	my %file = map { ('127.0.0.1:' . port($_) => 1) } 8081, 8082;

	$t->wait_for(sub {
		my $all = upstreams();
		my @more = map { my $name = $_; map { [ $name, $_->{name} ] }
			grep { !$file{ $_->{name} } } @{ $all->{$name}{peers} } } @METHODS;
		http_get("/control?upstream=$_->[0]&remove=&server=$_->[1]") for @more;
		return !@more;
	}, 10, 'the servers of the file only');
}

# What is counted though nothing is under way, compared with what was.
sub left ($all, $most) {
	my %left = (conns => 0, refs => 0);

	for my $name (@METHODS) {
		for my $group (grep { $_ } @{ $all->{$name}{leaks} }{qw/primary backup/}) {
			$left{conns} += $group->{conns} + ($group->{zombie_conns} // 0);
			$left{refs} += $group->{refs} // 0;
		}
	}

	$sum{left} += $left{conns};
	push @leaks, map { "$_ is $left{$_}, with $most requests cut off" }
		grep { $left{$_} > $most } sort keys %left;
}

# In what the lists are not as the clients know.
sub differences ($all, @results) {
	my @found;

	for my $name (@METHODS) {
		my %shown = map { $_->{name} => "weight=$_->{weight} $_->{state}" }
			@{ $all->{$name}{peers} };
		my %model = map { ('127.0.0.1:' . port($_) => 'weight=1 up') } 8081, 8082;
		for my $part (map { $_->{model}{$name} } @results) {
			$model{$_} = "weight=$part->{$_}{weight} $part->{$_}{state}"
				for keys %$part;
		}

		push @found, map { "$name $_: " . ($shown{$_} // 'not there') . ', not '
			. ($model{$_} // 'removed') } grep {
			($shown{$_} // '') ne ($model{$_} // '')
		} sort keys %{ { %shown, %model } };
	}

	return @found;
}

# Each change that was acknowledged is a revision, and no more were asked for.
sub revisions ($before, $after, @results) {
	return map {
		my $name = $_;
		my $by = $after->{$name}{revision} - $before->{$name}{revision};
		my ($least, $most) = (0, 0);
		$least += $_->{made}{$name} // 0, $most += $_->{asked}{$name} // 0
			for @results;
		$by < $least || $by > $most
			? "$name: $by revisions, $least to $most changes" : ();
	} @METHODS;
}

sub serves ($name) {
	my $got = burst(uri => "/u/$name", n => 40, concurrency => 8);
	return $got->{failed} ? "$name: $got->{failed} failed" : ();
}

sub changes ($name) {
	my @statuses = map { control("/control?upstream=$name&$_")->status() }
		'add=&server=127.0.0.9:8083&down=', 'server=127.0.0.9:8083&weight=4',
		'remove=&server=127.0.0.9:8083';
	return "@statuses" eq '200 200 200' ? () : "$name: @statuses";
}

# From here on: a client's own process.

sub client ($client, $file, $stop) {
	my @servers = map { s/:(\d+)\z/':' . port($1)/er } @{ $own[$client] };
	my %result = (acked => 0, sent => 0, refused => [], made => {}, asked => {},
		model => { map { $_ => {} } @METHODS });

	srand $$;

	while (!-e $stop) {
		my $name = $METHODS[rand @METHODS];
		my $model = $result{model}{$name};
		my ($args, $then) = step($name, $model, @servers);

		# No answer to the last attempt: nobody knows, and nobody asks.
		my $r = ask(\%result, $name, $args, $stop) // last;
		$then->($r);
	}

	nstore(\%result, "$file.new");
	rename "$file.new", $file or die "$file: $!\n";
}

# A change, and what it does to the model with its reply.  Asked for again it
# changes no more.
sub step ($name, $model, @servers) {
	my $server = $servers[rand @servers];
	my $is = $model->{$server};

	# nginx computes the points of a consistent hash with the lock in hand, and
	# there are 160 of them to a unit.
	my @weights = $name eq 'ring' && !$long ? (1, 2) : (1, 2, 5, 20);
	my $weight = $weights[rand @weights];
	my $state = (qw/up up down/)[rand 3];

	if (!$is) {
		return ("add=&format=json&server=$server&weight=$weight"
			. ($state eq 'down' ? '&down=' : ''), sub ($r) {
				$model->{$server} = { weight => $weight, state => $state,
					id => $r->status() == 200 ? $r->json()->{server}{id} : undef };
			});
	}

	my ($free) = grep { !$model->{$_} } @servers;
	my $what = rand;

	return ("remove=&server=$server", sub ($r) { delete $model->{$server} })
		if $what < 0.3;
	return ("id=$is->{id}&server=$free",
		sub ($r) { $model->{$free} = delete $model->{$server} })
		if $what < 0.5 && $free && defined $is->{id};
	return ("server=$server&weight=$weight",
		sub ($r) { $is->{weight} = $weight }) if $what < 0.75;
	return ("server=$server&$state=", sub ($r) { $is->{state} = $state });
}

sub ask ($result, $name, $args, $stop) {
	my $lost = 0;

	for my $attempt (1 .. ATTEMPTS) {
		my $r = http_get("/control?upstream=$name&$args", timeout => 5);
		$result->{sent}++;
		$result->{asked}{$name}++;

		# 304 is that of a server that is there, or is not, since an answer was
		# lost.
		if ($r->status() == 200 || ($r->status() == 304 && $lost)) {
			$result->{acked}++;

			# What was as it is asked for makes no revision.
			$result->{made}{$name}++ if !$lost && $args =~ /^(?:add|remove|id)=/;
			return $r;
		}

		if ($r->status() == 503 && $r->body() =~ /died with the lock/) {
			open my $fh, '>', "$stop.locked" or die "$stop.locked: $!\n";
			return;
		}

		if ($r->status()) {
			push @{ $result->{refused} }, $r->told()
				. " ($args)";
			return;
		}

		$lost = 1;
		return if -e $stop && $attempt > 5;
		select undef, undef, undef, 0.02;
	}

	push @{ $result->{refused} }, "no answer ($args)";
	return;
}
