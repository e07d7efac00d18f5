#!/usr/bin/env perl

# Tests for least_time of nginx 1.31 and newer, which counts the requests that
# are under way on each server: after servers came and went under load, none is
# counted that is not there.  nginx keeps away from a server with a request that
# never ends, so that a much slower one is taken in its place.
#
# TEST_NGINX_LONG is the time in seconds.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $seconds = $ENV{TEST_NGINX_LONG} || 3;

my $t = Test::Nginx->new(timeout => 120 + $seconds)->has(qw/
	module http proxy sticky upstream_zone upstream_keepalive
	upstream_least_time
/);

my %METHODS = (
	header => 'least_time header inflight;',
	last_byte => 'least_time last_byte inflight;',
	session => 'least_time header inflight; sticky cookie route;',
);
my @METHODS = sort keys %METHODS;

# Two that are always there, and one that answers after this time.
my @FAST = (8081, 8082);
use constant { SLOW => 8085, LATE => 0.3 };

# A request that never ended was under way for as long, in seconds: nginx takes
# half of it.
use constant IDLE => 1.5;

$t->plan(5 + 3 * @METHODS);

# Those that come and go; the last one refuses.
my @own = ((map { "127.0.0.1$_:8083" } 1 .. 3),
	(map { "127.0.0.1$_:8084" } 1 .. 2), '127.0.0.1:8088');

$t->write_file_expand('nginx.conf', <<'CONF', UPSTREAMS => join '',
%%TEST_GLOBALS%%
worker_processes 3;
events { worker_connections 1024; }
http {
    %%TEST_GLOBALS_HTTP%%
    access_log off;

    %%UPSTREAMS%%

    server {
        listen 127.0.0.1:8080 reuseport;

        %%KEEPALIVE%%

        %%CONTROL%%

        %%BY_NAME%%
    }
}
CONF
	map { "upstream $_ { zone $_ 512k; $METHODS{$_} server 127.0.0.1:8081; "
		. "server 127.0.0.1:8082; server 127.0.0.1:8085; keepalive 8; }\n" }
		@METHODS);

my $backends = Test::Nginx->servers(120 + $seconds,
	[ [ '127.0.0.1:8081', '127.0.0.1:8082', grep { /:8083/ } @own ],
		'location / { return 200 "$server_port"; }' ],
	[ [ '127.0.0.1:8085', grep { /:8084/ } @own ],
		'location / { proxy_pass http://127.0.0.1:8086; }' ]);
$backends->backend('127.0.0.1:8086', delay => LATE, body => 'slow');

$backends->run();
$t->leak_keys('/status', port(8080), pages => { map { $_ => 1 } @METHODS });
$t->run();

my $load = $t->load(uri => sub ($n) { "/u/$METHODS[$n % @METHODS]" },
	seconds => $seconds, concurrency => 24);
my (%status, %done);
my ($given_up, @open) = (0);

while ($load->running()) {
	change($METHODS[rand @METHODS]);

	# Clients that leave before their reply.
	push @open, http_start(uri => "/u/$METHODS[rand @METHODS]");
	next if @open < 8;
	$given_up += @open;
	@open = ();
}
@open = ();

my $got = $load->finish();
my $changes = $status{200} // 0;
note("$changes changes, $got->{total} requests, $given_up more given up");

is($got->{failed}, 0, 'no request failed') or diag(explain($got->{by_status}));
is_deeply([ grep { !/\A(?:200|304)\z/ } keys %status ], [], 'each change was made');
cmp_ok($changes, '>', 20 * $seconds, 'changes');
is(scalar keys %done, 4, 'of all kinds');
cmp_ok($given_up, '>', 10, 'requests that were given up');

restore($_) for @METHODS;
select undef, undef, undef, IDLE;
at_idle($_) for @METHODS;

sub act ($name, $args) { return control("/control?upstream=$name&$args") }

sub peers ($name) {
	return @{ get_json("/status?upstream=$name")->{upstreams}{$name}{peers} };
}

sub change ($name) {
	my $server = $own[rand @own];
	my ($peer) = grep { $_->{name} eq $t->expand($server) } peers($name);
	my $what = !$peer ? 'add' : (qw/remove move state/)[rand 3];
	my $other = $own[rand @own];
	my $state = (qw/drain down up/)[rand 3];

	$what = 'state' if $what eq 'move' && grep { $_->{name} eq $t->expand($other) }
		peers($name);
	$status{ act($name, $what eq 'add' ? "add=&server=$server"
		: $what eq 'remove' ? "remove=&server=$server"
		: $what eq 'move' ? "id=$peer->{id}&server=$other"
		: "server=$server&$state=")->status() }++;
	$done{$what}++;
}

# As configured, and nothing under way.
sub restore ($name) {
	my %file = map { ('127.0.0.1:' . port($_) => 1) } @FAST, SLOW;

	act($name, "remove=&id=$_->{id}") for grep { !$file{ $_->{name} } } peers($name);
	$t->wait_for(sub {
		my $leaks = get_json("/status?upstream=$name&verbose=")->{upstreams}{$name}
			{leaks}{primary};
		return !grep { $leaks->{$_} } qw/conns zombies/;
	}, 10, "$name: idle");
}

# Each of the fast ones is better than the slow one, which has been measured.
sub at_idle ($name) {
	act($name, "server=127.0.0.1:$_&down=") for @FAST;
	is(http_get("/u/$name")->body(), 'slow', "$name: the slow one serves");

	for my $port (@FAST) {
		act($name, "server=127.0.0.1:$port&up=");
		my %who = (slow => 0);
		$who{ http_get("/u/$name")->body() }++ for 1 .. 10;
		cmp_ok($who{slow}, '<=', 2, "$name: $port is not avoided");
		act($name, "server=127.0.0.1:$port&down=");
	}

	act($name, "server=127.0.0.1:$_&up=") for @FAST;
}
