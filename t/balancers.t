#!/usr/bin/env perl

# Tests for each balancer of nginx: it is known by its name, with keepalive
# beside it or without, and what was changed has its effect under it, in every
# worker.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/
	module http proxy realip upstream_zone upstream_keepalive
	upstream_least_conn upstream_ip_hash upstream_hash upstream_random
/);

# directive, and the word for it
my %METHODS = (
	rr          => [ '', 'round_robin' ],
	least       => [ 'least_conn;', 'least_conn' ],
	ip          => [ 'ip_hash;', 'ip_hash' ],
	hash        => [ 'hash $arg_key;', 'hash' ],
	ring        => [ 'hash $arg_key consistent;', 'hash consistent' ],
	random      => [ 'random;', 'random' ],
	two         => [ 'random two;', 'random' ],
	two_least   => [ 'random two least_conn;', 'random' ],
);

# Where keepalive is said, nginx's order of modules decides what wraps what:
# before the method it is lost in some versions.
my %KEEPALIVE = (
	plain => [ '', '' ], after => [ '', 'keepalive 4;' ],
	before => [ 'keepalive 4;', '' ],
);

my $SERVERS = join ' ', map { "server 127.0.0.1:$_;" } 8081 .. 8083;
my $UPSTREAMS = '';

for my $method (sort keys %METHODS) {
	for my $place (sort keys %KEEPALIVE) {
		my ($before, $after) = @{ $KEEPALIVE{$place} };
		$UPSTREAMS .= "upstream ${method}_$place { zone ${method}_$place 64k; "
			. "$before $METHODS{$method}[0] $after $SERVERS }\n";
	}
}

$t->plan(3 + 24 + 3 * 24 + 4 * 8 + 2 + 13 + 4 + 8);

$t->write_file_expand('nginx.conf', <<'CONF', UPSTREAMS => $UPSTREAMS);
%%TEST_GLOBALS%%
worker_processes 4;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    %%UPSTREAMS%%

    # The client's address chooses under ip_hash, hence one for each request.
    set_real_ip_from 127.0.0.1;
    real_ip_header X-Real-IP;

    server {
        # Gives each worker its share of the connections.
        listen 127.0.0.1:8080 reuseport;

        proxy_set_header X-Worker $pid;
        %%KEEPALIVE%%

        %%CONTROL%%

        %%BY_NAME%%
    }
}
CONF

my @backends = map { $t->backend("127.0.0.1:$_") } 8081 .. 8083;
$t->run();
$t->leak_keys('/status', 8080);

names();
changes();
weights();
every_worker();
ring();
sessions();
idle();

sub act ($name, $args) {
	my $r = control("/control?upstream=$name&$args");
	return $r->status();
}

# Requests with many keys and from many addresses, to many workers.
sub spread ($name, $n = 60, $concurrency = 8) {
	my %by_body;

	if ($name =~ /\Aip/) {
		for my $i (1 .. $n) {
			my $r = http_get("/u/$name",
				headers => { 'X-Real-IP' => "10.$i." . $i * 7 % 256 . '.1' });
			$by_body{ $r->status() == 200 ? $r->body() : 'failed' }++;
		}
	}
	else {
		my $got = burst(uri => sub ($i) { "/u/$name?key=$i" }, n => $n,
			concurrency => $concurrency);
		%by_body = (%{ $got->{by_body} },
			$got->{failed} ? (failed => $got->{failed}) : ());
	}

	return \%by_body;
}

sub names {
	my $all = get_json('/status')->{upstreams};
	is(keys %$all, 24, 'all upstreams');
	is_deeply([ map { $_->{name} } grep { !$_->{dynamic} } values %$all ], [],
		'all can be changed');
	is(scalar $t->grep_log(qr/is static/), 0, 'nothing in the log');

	for my $name (sort keys %$all) {
		my ($method) = $name =~ /\A(.*)_/;
		is($all->{$name}{method}, $METHODS{$method}[1], "method of $name");
	}
}

# Each state under each balancer, through each wrapper.
sub changes {
	for my $name (map { my $m = $_; map { "${m}_$_" } sort keys %KEEPALIVE }
		sort keys %METHODS) {
		is_deeply([ sort keys %{ spread($name) } ], [ 8081 .. 8083 ],
			"$name: all serve");

		act($name, 'server=127.0.0.1:8081&down=');
		act($name, 'server=127.0.0.1:8083&drain=');
		is_deeply(spread($name), { 8082 => 60 }, "$name: one is left");

		act($name, 'servers=127.0.0.1:8081,127.0.0.1:8083&up=');
		is_deeply([ sort keys %{ spread($name) } ], [ 8081 .. 8083 ],
			"$name: all are back");
	}
}

# Ten of twelve requests are for the first server, or about that many.
sub weights {
	for my $method (sort keys %METHODS) {
		my $name = "${method}_after";
		my $r = control("/control?upstream=$name&server=127.0.0.1:8081&weight=10");

		is($r->status(), 200, "$name: weight");

		# One request at a time, since what counts is the number of requests
		# under way where there are some; "two" takes the second of two that
		# have none, whatever their weights.
		my $got = spread($name, 240, 1);
		cmp_ok($got->{8081} // 0, '>=', $method =~ /two/ ? 1 : 160,
			"$name: most to the first");
		is($got->{failed}, undef, "$name: no failure");
		is(act($name, 'server=127.0.0.1:8081&weight=1'), 200,
			"$name: weight of before");
	}
}

# Each worker has made itself a new table, not only the one that was asked.
sub every_worker {
	act('random_plain', 'server=127.0.0.1:8081&weight=10');
	my @before = map { $_->count() } @backends;
	spread('random_plain', 480);

	my (%all, %first);
	for my $i (0 .. 2) {
		my @requests = $backends[$i]->requests();
		for (@requests[$before[$i] .. $#requests]) {
			my $worker = $_->{headers}{'x-worker'};
			$all{$worker}++;
			$first{$worker}++ if $i == 0;
		}
	}

	# Far from one third as from ten twelfths, for some 120 requests each.
	is(scalar(grep { $_ > 40 } values %all), 4, 'random: all workers');
	is_deeply([ grep { $first{$_} / $all{$_} < 0.6 } keys %first ], [],
		'random: most to the first, in each');
	act('random_plain', 'server=127.0.0.1:8081&weight=1');
}

# Where each of many keys goes, in all workers: a key that goes to different
# servers has both.
sub keys_of ($name) {
	my %to;

	for my $round (1 .. 3) {
		my $got = burst(uri => sub ($i) { "/u/$name?key=$i" }, n => 120,
			concurrency => 12);
		$to{ $_->{n} }{ $_->{body} } = 1 for @{ $got->{requests} };
	}

	return { map { $_ => join ',', sort keys %{ $to{$_} } } keys %to };
}

sub share ($keys, $server) {
	return scalar grep { $_ eq $server } values %$keys;
}

# A key goes to the same server in each worker, and moves only if it must.
sub ring {
	my $name = 'ring_plain';
	my $before = keys_of($name);

	is(scalar(grep { /,/ } values %$before), 0, 'ring: workers agree');
	act($name, 'server=127.0.0.1:8082&down=');
	my $down = keys_of($name);
	is(share($down, 8082), 0, 'ring: nothing to the one that is down');
	is_deeply([ grep { $before->{$_} ne 8082 && $before->{$_} ne $down->{$_} }
		keys %$before ], [], 'ring: other keys stay');
	act($name, 'server=127.0.0.1:8082&up=');
	is_deeply(keys_of($name), $before, 'ring: back as before');

	my $was = share($before, 8082);
	is(act($name, 'server=127.0.0.1:8082&weight=20'), 200, 'ring: weight');
	my $heavy = keys_of($name);
	is(scalar(grep { /,/ } values %$heavy), 0,
		'ring: workers agree on the new one');
	cmp_ok(share($heavy, 8082), '>=', 90, 'ring: most keys');
	cmp_ok(share($heavy, 8082), '>', $was, 'ring: more than before');
	is_deeply([ grep { $heavy->{$_} ne 8082 && $heavy->{$_} ne $before->{$_} }
		keys %$before ], [], 'ring: keys move only to it');
	is(act($name, 'server=127.0.0.1:8082&weight=1'), 200,
		'ring: weight of before');
	is_deeply(keys_of($name), $before, 'ring: and keys of before');

	# Under load, since each worker makes a new ring in the middle of it.
	my $load = $t->load(uri => "/u/$name?key=a", seconds => 20,
		concurrency => 8, keepalive => 1);
	for my $weight (2 .. 12, 1) {
		act($name, "server=127.0.0.1:8082&weight=$weight");
	}
	is($load->finish(now => 1)->{failed}, 0, 'ring: no request was lost');
	is_deeply(keys_of($name), $before, 'ring: as before');
}

# An address stays with its server.
sub sessions {
	my $of = sub ($i) {
		return http_get('/u/ip_plain',
			headers => { 'X-Real-IP' => "10.1.$i.1" })->body();
	};
	my %before = map { $_ => $of->($_) } 1 .. 20;
	my ($server) = $before{1};

	act('ip_plain', "server=127.0.0.1:$server&drain=");
	my %drained = map { $_ => $of->($_) } 1 .. 20;
	is(scalar(grep { $_ eq $server } values %drained), 0,
		'ip_hash: nothing to the one that is drained');
	is_deeply([ grep { $before{$_} ne $server && $before{$_} ne $drained{$_} }
		keys %before ], [], 'ip_hash: the others stay');
	act('ip_plain', "server=127.0.0.1:$server&up=");
	is_deeply({ map { $_ => $of->($_) } 1 .. 20 }, \%before,
		'ip_hash: back as before');

	is(scalar keys %{ burst(uri => '/u/hash_plain?key=a', n => 20)->{by_body} }, 1,
		'hash: one key, one server');
}

# Connections that keepalive holds open do not bring a server back.
sub idle {
	for my $name (qw/rr_after least_after hash_after ring_after/) {
		spread($name);
		act($name, 'server=127.0.0.1:8082&down=');
		is((spread($name, 80)->{8082}) // 0, 0,
			"$name: idle connections are not used");
		act($name, 'server=127.0.0.1:8082&up=');
		cmp_ok(spread($name, 80)->{8082} // 0, '>', 0,
			"$name: until it is up");
	}
}
