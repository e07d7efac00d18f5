#!/usr/bin/env perl

# Tests for servers that come and go under each balancer of nginx, with workers
# that served before: each worker balances over the new list, and as an nginx
# that was started with it would.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/
	module http proxy realip upstream_zone upstream_keepalive
	upstream_least_conn upstream_ip_hash upstream_hash upstream_random
/);

my %METHODS = (
	rr => '', least => 'least_conn;', ip => 'ip_hash;', hash => 'hash $arg_key;',
	ring => 'hash $arg_key consistent;', random => 'random;',
	two => 'random two;',
);
my @METHODS = sort keys %METHODS;

$t->plan(7 * (5 + 11) + 3 * 5 + 8 + 4 + 7 + 3 + 1);

# Those with a fixed list show where a key belongs after a change.
my @FRESH = ([ 1, 2, 3, 4 ], [ 1, 3, 4 ], [ 3, 4 ], [ 3, 4, 1 ]);
my $UPSTREAMS = '';

for my $method (@METHODS) {
	$UPSTREAMS .= upstream_block("${method}_$_", $METHODS{$method}, 1 .. 3)
		for qw/more zero map/;
}

for my $method (qw/hash ip ring/) {
	$UPSTREAMS .= upstream_block("${method}_fresh$_", $METHODS{$method},
		@{ $FRESH[$_] }) for 0 .. $#FRESH;
}

$t->write_file_expand('nginx.conf', <<'CONF', UPSTREAMS => $UPSTREAMS);
%%TEST_GLOBALS%%
worker_processes 3;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    %%UPSTREAMS%%

    upstream lone {
        zone lone 64k;
        server 127.0.0.1:8081 max_fails=1 fail_timeout=60s;
        keepalive 4;
    }

    upstream spare {
        zone spare 64k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8084 backup;
    }

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

my @backends = map { $t->backend("127.0.0.1:808$_") } 1 .. 4;
$t->run();
$t->leak_keys('/status', 8080, pages => { spare => 1,
	map { my $m = $_; map { ("${m}_$_" => 1) } qw/more zero map/ } @METHODS });

every_worker($_) for @METHODS;
to_zero($_) for @METHODS;
maps($_) for qw/hash ip ring/;
spare();
lone();
new_workers();

sub upstream_block ($name, $method, @servers) {
	return "upstream $name { zone $name 64k; $method "
		. join(' ', map { "server 127.0.0.1:808$_;" } @servers) . " }\n";
}

sub act ($name, $args) {
	return control("/control?upstream=$name&$args")->status();
}

# Where each of many keys goes, in all workers: one that goes to several servers
# has them all.
sub keys_of ($name, $n = 60) {
	my %to;

	if ($name =~ /\Aip/) {
		for my $i (1 .. $n) {
			my $r = http_get("/u/$name",
				headers => { 'X-Real-IP' => "10.$i." . $i * $i % 251 . '.1' });
			$to{$i}{ $r->status() == 200 ? $r->body() : $r->status() } = 1;
		}
	}
	else {
		for my $round (1 .. 2) {
			my $got = burst(uri => sub ($i) { "/u/$name?key=$i" }, n => $n,
				concurrency => 9);
			$to{ $_->{n} }{ $_->{status} == 200 ? $_->{body} : $_->{status} } = 1
				for @{ $got->{requests} };
		}
	}

	return { map { $_ => join ',', sort keys %{ $to{$_} } } keys %to };
}

# All servers and other replies that requests of any key had.
sub seen ($name) {
	my %seen = map { $_ => 1 } map { split /,/ } values %{ keys_of($name) };
	return join ' ', sort keys %seen;
}

# A request through each worker, with different keys and addresses.
sub from_workers ($name, $server) {
	my %workers;
	my $before = $backends[$server - 1]->count();

	$t->wait_for(sub {
		keys_of($name);
		my @requests = $backends[$server - 1]->requests();
		$workers{ $_->{headers}{'x-worker'} } = 1
			for @requests[$before .. $#requests];
		return keys %workers == 3;
	}, 10, "$name: server $server is used by each worker");

	return scalar keys %workers;
}

# Each worker has its own tables for some methods.
sub every_worker ($method) {
	my $name = "${method}_more";

	is(from_workers($name, 1), 3, "$method: all workers have served");
	is(act($name, 'add=&server=127.0.0.1:8084'), 200, "$method: one more");
	is(from_workers($name, 4), 3, "$method: it has requests from each worker");
	is(act($name, 'remove=&server=127.0.0.1:8081'), 200, "$method: one less");
	is(seen($name), '8082 8083 8084', "$method: none for it, from no worker");
}

# A pool may be empty for a time, or have nobody who is up.
sub to_zero ($method) {
	my $name = "${method}_zero";

	is(seen($name), '8081 8082 8083', "$method: all workers have served");
	act($name, "remove=&server=127.0.0.1:$_") for 8081, 8082;
	is(seen($name), '8083', "$method: one is left");
	is(control("/control?upstream=$name&remove=&server=127.0.0.1:8083")->body(),
		"# no servers left\n", "$method: none is left");
	is(seen($name), '502', "$method: 502");
	is_deeply(get_json("/status?upstream=$name")->{upstreams}{$name}{peers},
		[], "$method: nobody in the status");
	is(act($name, 'add=&server=127.0.0.1:8082'), 200, "$method: one comes");
	is(seen($name), '8082', "$method: it serves");
	act($name, 'server=127.0.0.1:8082&down=');
	act($name, 'add=&down=&server=127.0.0.1:8081');
	is(seen($name), '502', "$method: all are down");
	act($name, 'server=127.0.0.1:8081&up=');
	is(seen($name), '8081', "$method: one is up");
	act($name, "add=&server=127.0.0.1:$_") for 8083, 8084;
	act($name, 'server=127.0.0.1:8082&up=');
	is(seen($name), '8081 8082 8083 8084', "$method: four");
	is(http_get('/status')->status(), 200, "$method: status");
}

# Keys go where they would if nginx had been started with the list.
sub maps ($method) {
	my $name = "${method}_map";

	my @steps = ('add=&server=127.0.0.1:8084', 'remove=&server=127.0.0.1:8082',
		'remove=&server=127.0.0.1:8081', 'add=&server=127.0.0.1:8081');

	# Workers have tables of the old list.
	keys_of($name);
	for my $i (0 .. $#FRESH) {
		act($name, $steps[$i]);
		is_deeply(keys_of($name), keys_of("${method}_fresh$i"),
			"$method: keys of @{ $FRESH[$i] }");
	}

	act($name, 'id=2&server=127.0.0.1:8082');
	act("${method}_fresh3", 'id=0&server=127.0.0.1:8082');
	is_deeply(keys_of($name), keys_of("${method}_fresh3"),
		"$method: keys after a move");
}

# Workers that start know what the file says, and balance over what is there from
# their first request on.
sub new_workers {
	my %wanted = map { $_ => keys_of("${_}_map") } qw/hash ip ring/;
	my %before = map { $_ => 1 } $t->workers();

	$t->kill_worker($_) for keys %before;
	is_deeply([ grep { $before{$_} } $t->workers() ], [], 'all workers are new');
	is(seen("${_}_more"), '8082 8083 8084', "$_: new workers: the servers of now")
		for @METHODS;
	is_deeply(keys_of("${_}_map"), $wanted{$_}, "$_: new workers: the same keys")
		for sort keys %wanted;
}

# One server is served in another way than two, and one with a backup again.
sub spare {
	my $try = sub ($args, $wanted, $text) {
		act('spare', $args) if $args;
		is(seen('spare'), $wanted, "spare: $text");
	};

	$try->('', '8081', 'one, and a backup');
	$try->('add=&server=127.0.0.1:8082', '8081 8082', 'two');
	$try->('remove=&server=127.0.0.1:8081', '8082', 'one');
	$try->('remove=&server=127.0.0.1:8082', '8084', 'none: the backup');
	$try->('remove=&server=127.0.0.1:8084', '502', 'nobody');
	$try->('add=&server=127.0.0.1:8083', '8083', 'one without a backup');
	$try->('add=&server=127.0.0.1:8084&backup=', '8083', 'and with one');
	$try->('server=127.0.0.1:8083&down=', '8084', 'which is needed');
}

# The only server is never left alone for its failures, and a connection that it
# closed costs no request.
sub lone {
	my $stale = sub ($text) {
		$backends[0]->set(silent_close => 0);
		http_get('/u/lone') for 1 .. 6;
		$backends[0]->stop();
		$backends[0]->restart();
		my $got = burst(uri => '/u/lone', n => 20, concurrency => 5);
		is_deeply($got->{by_status}, { 200 => 20 }, "lone: $text");
	};

	$stale->('connections that are no more');
	act('lone', 'add=&server=127.0.0.1:8082');
	act('lone', 'remove=&server=127.0.0.1:8082');
	$stale->('the same after two');

	$backends[0]->stop();
	is(join(' ', map { http_get('/u/lone')->status() } 1 .. 3), '502 502 502',
		'lone: away');
	$backends[0]->restart();
	is(http_get('/u/lone')->status(), 200, 'lone: its failures do not count');
}
