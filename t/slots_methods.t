#!/usr/bin/env perl

# Tests for the balancers of nginx before 1.27.3 over slots that servers came
# into and left, again and again: each chooses as that of an nginx which was
# started with the same servers, in every worker, also in one that is new.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/
	module http proxy realip upstream_zone upstream_keepalive
	upstream_ip_hash upstream_hash upstream_random
/);

plan(skip_all => 'lists grow since nginx 1.27.3')
	if $t->has_version('1.27.3');

# Those that send a key always to the same server.
my %METHODS = (
	ip => 'ip_hash;', hash => 'hash $arg_key;',
	ring => 'hash $arg_key consistent;',
);
my @METHODS = sort keys %METHODS;

# Changes, and servers that are there at most.
use constant { CHANGES => 60, MOST => 9 };

$t->plan(3 * 5 + 4 + 10 + 3);

# Of the numbers that choose the changes: the same in each run.
my $state = 7;

my $CONF = <<'CONF';
%%TEST_GLOBALS%%
worker_processes 3;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    %%UPSTREAMS%%

    # The client's address chooses under ip_hash, hence one for each request.
    set_real_ip_from 127.0.0.1;
    real_ip_header X-Real-IP;

    server {
        # Gives each worker its share of the connections.
        listen 127.0.0.1:%%LISTEN%% reuseport;

        %%KEEPALIVE%%
        proxy_set_header X-Worker $pid;

        %%CONTROL%%

        %%BY_NAME%%
    }
}
CONF

$t->write_file_expand('nginx.conf', $CONF, LISTEN => port(8080),
	UPSTREAMS => join '', <<'FIXED', map {
    upstream random {
        zone random 64k;
        random;
        server 127.0.0.1:8081;
        server 127.0.0.2:8081;
    }

    upstream smooth {
        zone smooth 64k;
        server 127.0.0.1:8081;
        server 127.0.0.2:8081 weight=1000;
    }

    upstream lone {
        zone lone 64k;
        server 127.0.0.1:8083 max_fails=1 fail_timeout=60s;
        server 127.0.0.1:8081 backup;
        keepalive 4;
    }
FIXED
	"upstream $_ { zone $_ 64k; upstream_capacity @{[ MOST ]}; $METHODS{$_} "
		. "server 127.0.0.1:8081; server 127.0.0.2:8081 weight=2; }\n"
	} @METHODS);

# Each server says its address, and the worker that asked.
my $backends = Test::Nginx->new();
$backends->write_file_expand('nginx.conf', <<'CONF', LISTEN => join '', map {
%%TEST_GLOBALS%%
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    server {
%%LISTEN%%
        location / { return 200 "$server_addr $http_x_worker"; }
    }
}
CONF
	"        listen 127.0.0.$_:8081;\n" } 1 .. 2 * MOST);

$backends->run();
my $lone = $t->backend('127.0.0.1:8083');
$t->run();
$t->leak_keys('/status', port(8080));

walk($_) for @METHODS;
killed();
smooth();
lone();

sub act ($name, $args) {
	my $r = control("/control?upstream=$name&$args");
	die "$name: $args: " . $r->told() . "\n"
		if $r->status() != 200;
}

sub peers ($name) {
	return @{ get_json("/status?upstream=$name")->{upstreams}{$name}{peers} };
}

# Where each of many keys goes, by worker.
sub keys_of ($name, $port = 8080) {
	my (%to, %workers);

	for my $i (1 .. 150) {
		my $r = http_get("/u/$name?key=$i", port => $port,
			headers => { 'X-Real-IP' => "10.$i." . $i * $i % 251 . '.1' });
		my ($server, $worker) = split / /, $r->body();
		$to{$i} = $r->status() == 200 ? $server : $r->status();
		$workers{$worker}++;
	}

	return (\%to, scalar keys %workers);
}

# The same, until each worker was asked for each key several times.
sub same_everywhere ($name, $wanted) {
	my @wrong;

	for my $round (1 .. 4) {
		my ($keys) = keys_of($name);
		push @wrong, grep { $keys->{$_} ne $wanted->{$_} } keys %$wanted;
	}

	return \@wrong;
}

# A number out of so many.
sub choose ($n) {
	$state = ($state * 1_103_515_245 + 12_345) % 2**31;
	return ($state >> 8) % $n;
}

# Many changes of all kinds, with requests in between, so that workers have
# tables of what was; then as a new nginx.
sub walk ($name) {
	my %done;

	for my $change (1 .. CHANGES) {
		my @peers = peers($name);
		my %here = map { $_->{name} => 1 } @peers;
		my @free = grep { !$here{$_} } map { "127.0.0.$_:" . port(8081) }
			1 .. 2 * MOST;
		my $new = $free[ choose(scalar @free) ];
		my $what = @peers < 2 ? 'add' : @peers == MOST ? 'remove'
			: (qw/add remove move weight/)[ choose(4) ];
		my $peer = $peers[ choose(scalar @peers) ] if @peers;
		my $weight = 1 + choose(5);

		act($name, $what eq 'add' ? "add=&server=$new&weight=$weight"
			: $what eq 'remove' ? "remove=&id=$peer->{id}"
			: $what eq 'move' ? "id=$peer->{id}&server=$new"
			: "id=$peer->{id}&weight=$weight");
		$done{$what}++;
		http_get("/u/$name?key=$_") for 1 .. 3;
	}

	act($name, 'add=&server=127.0.0.1:8081') if peers($name) < 3
		&& !grep { $_->{name} eq '127.0.0.1:' . port(8081) } peers($name);
	is(scalar keys %done, 4, "$name: changes of all kinds");

	my @servers = map { "server $_->{server} weight=$_->{weight};" }
		peers($name);
	my $fresh = Test::Nginx->new();
	$fresh->write_file_expand('nginx.conf', $CONF, LISTEN => port(8090),
		UPSTREAMS => "upstream $name { zone $name 64k; $METHODS{$name} @servers }");
	$fresh->run();
	my ($wanted) = keys_of($name, 8090);
	$fresh->stop();

	my ($keys, $workers) = keys_of($name);
	is($workers, 3, "$name: each worker was asked");
	is_deeply($keys, $wanted, "$name: keys as in a new nginx, with @servers");
	is_deeply(same_everywhere($name, $wanted), [], "$name: in every worker");

	# Workers that start know what the file says, and have to see what is.
	$t->kill_worker($_) for $t->workers();
	is_deeply(same_everywhere($name, $wanted), [], "$name: in new workers");
}

# Requests in a new worker, from the first, are for the new server.
sub killed {
	my $got = sub ($text) {
		my $burst = burst(uri => '/u/random', n => 240);
		my (%all, %first);

		for my $request (@{ $burst->{requests} }) {
			my ($server, $worker) = split / /, $request->{body};
			$all{$worker}++;
			$first{$worker}++ if $server eq '127.0.0.3';
		}

		is(keys %all, 3, "random: $text: each worker was asked");
		is_deeply([ grep { ($first{$_} // 0) < 0.75 * $all{$_} } keys %all ], [],
			"random: $text: most to the new server");
	};

	burst(uri => '/u/random', n => 60);
	act('random', 'add=&server=127.0.0.3:8081&weight=40');
	act('random', 'remove=&id=0');
	$got->('workers of before');
	$t->kill_worker($_) for $t->workers();
	$got->('new workers');
}

# What a server had in its slot is not what the next one has.
sub smooth {
	my $shares = sub ($n) {
		my %shares;
		$shares{ (split / /, http_get('/u/smooth')->body())[0] }++ for 1 .. $n;
		return \%shares;
	};

	$shares->(7);
	act('smooth', 'remove=&id=1');
	act('smooth', 'id=0&server=127.0.0.5:8081');
	act('smooth', 'add=&server=127.0.0.3:8081');
	is_deeply($shares->(20), { map { $_ => 10 } qw/127.0.0.5 127.0.0.3/ },
		'smooth: half for each');

	act('smooth', 'id=2&weight=9');
	is_deeply($shares->(20), { '127.0.0.5' => 2, '127.0.0.3' => 18 },
		'smooth: as the weights say');
	act('smooth', 'remove=&id=2');
	act('smooth', 'add=&server=127.0.0.4:8081&weight=3');
	is_deeply($shares->(20), { '127.0.0.5' => 5, '127.0.0.4' => 15 },
		'smooth: and again');
}

# nginx never leaves alone its only server for failures, if there is no backup:
# slots for backups are none.
sub lone {
	my $answer = sub { return (split / /, http_get('/u/lone')->body())[0] };
	my $away = sub ($text, $wanted) {
		$lone->stop();
		is(join(' ', map { http_get('/u/lone')->status() } 1 .. 2),
			"$wanted $wanted", "lone: $text: away");
		$lone->restart();
	};

	is($answer->(), '8083', 'lone: serves');
	$away->('a backup', 200);
	is($answer->(), '127.0.0.1', 'lone: a backup: failures count');
	act('lone', 'remove=&id=1');
	is($answer->(), '8083', 'lone: no backup: they do not');
	$away->('no backup', 502);
	is($answer->(), '8083', 'lone: no backup: back at once');

	# One more, and only one.
	act('lone', 'add=&server=127.0.0.1:8081');
	act('lone', 'remove=&server=127.0.0.1:8081');
	$away->('after two', 502);
	is($answer->(), '8083', 'lone: after two: back at once');
	act('lone', 'add=&server=127.0.0.1:8081&backup=');
	$away->('a backup again', 200);
	is($answer->(), '127.0.0.1', 'lone: a backup again: failures count');
}
