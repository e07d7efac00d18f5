#!/usr/bin/env perl

# Tests for max_conns before nginx 1.27.3, when a server leaves and returns: it
# has its own slot back, with the requests that it is still at, so that it never
# has more of them than it may.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/
	module http proxy realip limit_conn upstream_zone upstream_least_conn
	upstream_ip_hash upstream_hash upstream_random
/);

plan(skip_all => 'lists grow since nginx 1.27.3')
	if $t->has_version('1.27.3');

my %METHODS = (
	rr => '', least => 'least_conn;', ip => 'ip_hash;',
	hash => 'hash $request_id;', ring => 'hash $request_id consistent;',
	random => 'random;', two => 'random two;',
);
my @METHODS = sort keys %METHODS;

# How often servers leave and return.
use constant ROUNDS => 30;

$t->plan(7 * 6);

$t->write_file_expand('nginx.conf', <<'CONF', UPSTREAMS => join '',
%%TEST_GLOBALS%%
worker_processes 3;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    %%UPSTREAMS%%

    server {
        listen 127.0.0.1:8080 reuseport;

        %%CONTROL%%

        %%BY_NAME%%
    }
}
CONF
	map { "upstream $_ { zone $_ 256k; $METHODS{$_} "
		. join(' ', map { "server 127.0.0.$_:8081 max_conns=2;" } 1 .. 3)
		. " }\n" } @METHODS);

# A server that has more requests at once than it should says 503.
my $backends = Test::Nginx->new();
$backends->write_file_expand('nginx.conf', <<'CONF', LISTEN => join '', map {
%%TEST_GLOBALS%%
worker_processes 1;
events { worker_connections 4096; }
http {
    %%TEST_GLOBALS_HTTP%%

    limit_conn_zone $server_addr zone=servers:1m;

    server {
%%LISTEN%%
        limit_conn servers 2;
        location / { proxy_pass http://127.0.0.1:8086; }
    }
}
CONF
	"        listen 127.0.0.$_:8081;\n" } 1 .. 3);
$backends->backend('127.0.0.1:8086', delay => 0.03, body => 'served');

$backends->run();
$t->run();
$t->leak_keys('/status', port(8080));

limited($_) for @METHODS;

sub act ($name, $args) {
	my $r = control("/control?upstream=$name&$args");
	return $r->status() == 200 ? () : $r->told();
}

sub limited ($name) {
	my $load = $t->load(uri => "/u/$name", seconds => 60, concurrency => 50);
	my @refused;

	for my $round (1 .. ROUNDS) {
		my $server = '127.0.0.' . (1 + $round % 3) . ':8081';
		push @refused, act($name, "remove=&server=$server"),
			act($name, "add=&server=$server&max_conns=2");
	}

	my $got = $load->finish(now => 1);
	is_deeply(\@refused, [], "$name: all changes were made");
	is($got->{by_status}{503}, undef, "$name: never more than the limit");
	is_deeply([ grep { !/\A(?:200|502)\z/ } keys %{ $got->{by_status} } ], [],
		"$name: nor another failure") or diag(explain($got->{by_status}));
	cmp_ok($got->{ok}, '>', 0, "$name: requests");
	cmp_ok($got->{by_status}{502}, '>', 0, "$name: the limit was reached");

	# As many as there is room for.
	$t->wait_for(sub {
		my $all = get_json('/status?verbose=')->{upstreams}{$name};
		return !$all->{leaks}{primary}{conns};
	}, 5, "$name: nothing is stuck");
	is(http_get("/u/$name")->body(), 'served', "$name: it serves");
}
