#!/usr/bin/env perl

# Tests for connections that keepalive holds open when servers leave or move: no
# worker uses one to a server that is gone, and each closes those it has within
# a second.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/
	module http proxy upstream_zone upstream_keepalive upstream_hash
	upstream_least_conn upstream_random unix ipv6
/);

# Connections that nobody looked at would stay for a minute.  On a busy machine
# it may take longer than it should to see that they are gone, but not each time.
use constant LIMIT => 10;

my @took;

my %METHODS = (
	rr => '', least => 'least_conn;', ring => 'hash $arg_key consistent;',
	random => 'random;',
);
my @METHODS = sort keys %METHODS;

$t->plan(57);

$t->write_file_expand('nginx.conf', <<'CONF', UPSTREAMS => join '',
%%TEST_GLOBALS%%
worker_processes 3;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    %%UPSTREAMS%%

    upstream late {
        zone late 64k;
        server 127.0.0.1:8087;
        server 127.0.0.1:8082 backup;
        keepalive 16;
    }

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
	map { "upstream $_ { zone $_ 256k; upstream_capacity 80; "
		. "$METHODS{$_} server 127.0.0.1:8081; server 127.0.0.1:8082; keepalive 16; }\n" } @METHODS);

my %backends = map { $_ => $t->backend($_) } map({ "127.0.0.1:$_" }
	8081 .. 8083, 8087), '[::1]:8084', 'unix:%%TESTDIR%%/one.sock';

$t->run();
$t->leak_keys('/status', 8080, pages => { late => 1,
	map { $_ => 2 } @METHODS });

moves($_) for @METHODS;
returns($_) for @METHODS;
closed(@$_) for [ rr => '127.0.0.1:8083' ], [ ring => '127.0.0.1:8083' ],
	[ least => '[::1]:8084' ], [ random => 'unix:%%TESTDIR%%/one.sock' ];
under_way();
many();

cmp_ok((sort { $a <=> $b } @took)[0], '<', 1, 'closed within a second');

sub act ($name, $args) {
	my $r = control("/control?upstream=$name&" . $t->expand($args));
	die "\"$args\": " . $r->told() . "\n"
		unless $r->status() == 200;
}

# Requests from all workers, which leave connections behind.
sub spread ($name, $n = 60) {
	return burst(uri => sub ($i) { "/u/$name?key=$i" }, n => $n,
		concurrency => 9);
}

# Connections that a backend with a unix socket holds.
sub open_to_socket ($path) {
	open my $fh, '<', '/proc/net/unix' or die "/proc/net/unix: $!\n";
	return scalar grep { / 03 +\d+ \Q$path\E$/ } <$fh>;
}

# Open connections to a port, however the other end sees them: established, or
# closed by it.
sub open_to ($port) {
	my $hex = sprintf '%04X', port($port);
	my $n = 0;

	for my $file ('/proc/net/tcp', '/proc/net/tcp6') {
		open my $fh, '<', $file or next;
		$n += grep { /^\s*\d+: [0-9A-F]+:[0-9A-F]{4} [0-9A-F]+:$hex 0[18] / } <$fh>;
	}

	return $n;
}

# Each answer says whose it is: none that was asked for after the call.
sub moves ($name) {
	my $load = $t->load(uri => "/u/$name?key=a", seconds => 20, concurrency => 3,
		keepalive => 1, records => 1);
	my @periods;

	for my $round (1 .. 4) {
		my ($from, $to) = $round % 2 ? (8081, 8083) : (8083, 8081);
		spread($name, 45);
		act($name, "id=0&server=127.0.0.1:$to");
		push @periods, [ $from, now() ];
		my $got = spread($name, 45);
		$periods[-1][2] = now();
		$periods[-1][3] = $got->{by_body}{$from} // 0;
		$periods[-1][4] = $got->{by_body}{$to} // 0;
	}

	my $got = $load->finish(now => 1);
	my $late = 0;

	for my $period (@periods) {
		my ($from, $begin, $end) = @$period;
		$late += grep { $_->{body} eq $from && $_->{started} > $begin
			&& $_->{started} < $end } @{ $got->{requests} };
	}

	is($got->{failed}, 0, "$name: no request was lost");
	is($late, 0, "$name: no answer from the old address, under load");
	is_deeply([ map { $_->[3] } @periods ], [ (0) x 4 ],
		"$name: nor in all workers");
	is(scalar(grep { $_->[4] } @periods), 4, "$name: the new one answers");
}

# A server that comes to the address of one that left is another one: what was
# open before is not for it.
sub returns ($name) {
	my $backend = $backends{'127.0.0.1:8082'};
	my @old;

	for my $round (1 .. 3) {
		spread($name);
		my $connections = $backend->connections();
		my $requests = $backend->count();

		act($name, 'remove=&server=127.0.0.1:8082');
		act($name, 'add=&server=127.0.0.1:8082');
		my $got = spread($name);

		my @new = ($backend->requests())[$requests .. $backend->count() - 1];
		cmp_ok(scalar @new, '>', 0, "$name: it serves again") if $round == 3;
		push @old, grep { $_->{connection} <= $connections } @new;
		is($got->{failed}, 0, "$name: no failure") if $round < 3;
	}

	is(scalar @old, 0, "$name: over new connections only");
}

# Also by a worker that has nothing to do.
sub closed ($name, $server) {
	my ($port) = $server =~ /:(\d+)\z/;
	my $path = $t->testdir() . '/one.sock';
	my $count = $port ? sub { open_to($port) }
		: sub { open_to_socket($path) };

	act($name, "remove=&server=127.0.0.1:8082");
	act($name, "add=&server=$server");

	my %workers;
	$t->wait_for(sub {
		spread($name);
		$workers{ $_->{headers}{'x-worker'} } = 1
			for $backends{$server}->requests();
		return keys %workers == 3;
	}, 10, "$name: $server is used by each worker");
	is(keys %workers, 3, "$name: each worker used $server");
	cmp_ok($count->(), '>=', 3, "$name: connections are open");

	act($name, "remove=&server=$server");
	my $began = now();
	ok($t->wait_for(sub { !$count->() },
		LIMIT, "$name: $server has no connections"), "$name: they are closed");
	push @took, now() - $began;
	cmp_ok(open_to(8081), '>', 0, "$name: others stay open");
}

# A request that was under way leaves a connection behind when it is done: that
# is closed as well.
sub under_way {
	my $slow = $backends{'127.0.0.1:8087'};
	$slow->set(delay => 1);
	my @handles = map { http_start(uri => '/u/late') } 1 .. 4;
	$t->wait_for(sub { $slow->count() == 4 }, 5, 'four requests');
	act('late', 'remove=&server=127.0.0.1:8087');
	is(http_get('/u/late')->body(), '8082', 'late: others go elsewhere');

	is(join(' ', map { http_finish($_)->body() } @handles),
		'8087 8087 8087 8087', 'late: they are answered');
	my $began = now();
	ok($t->wait_for(sub { !open_to(8087) }, LIMIT, 'late: all are closed'),
		'late: their connections are closed');
	push @took, now() - $began;

	my $connections = $slow->connections();
	$slow->set(delay => 0);
	act('late', 'add=&server=127.0.0.1:8087');
	http_get('/u/late') for 1 .. 6;
	is(scalar(grep { $_->{connection} <= $connections }
		($slow->requests())[4 .. $slow->count() - 1]), 0,
		'late: none is used again');
}

# More than are remembered one by one.
sub many {
	my $name = 'rr';

	spread($name);
	act($name, "add=&server=127.0.0.9:$_&down=") for 1001 .. 1060;
	act($name, "remove=&server=127.0.0.9:$_") for 1001 .. 1060;
	is(spread($name)->{failed}, 0, 'many: no failure');
	act($name, 'add=&server=127.0.0.1:8083');
	is(spread($name)->{by_body}{8083} > 0, 1, 'many: a new server serves');
	cmp_ok(open_to(8083), '>', 0, 'many: connections are kept');
	act($name, 'remove=&server=127.0.0.1:8083');
	ok($t->wait_for(sub { !open_to(8083) }, LIMIT, 'many: none is open'),
		'many: and closed');
}
