#!/usr/bin/env perl

# Tests for a request that fails on a server while others come and go: it is
# tried on one of those that are there then, and not where it failed.  nginx
# notes where a request was by places in the list, which then are others'.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/
	module http proxy upstream_zone upstream_least_conn upstream_ip_hash
	upstream_hash upstream_random
/);

my %METHODS = (
	rr => '', least => 'least_conn;', ip => 'ip_hash;', hash => 'hash $arg_key;',
	ring => 'hash $arg_key consistent;', random => 'random;',
	two => 'random two;',
);
my @METHODS = sort keys %METHODS;

# Changes while a request is at the second of four servers, of which no other
# one is up, and who answers in the end.
my @ROWS = (
	[ 'one before it leaves', 8083, 'remove=&id=0', 'id=2&up=' ],
	[ 'two leave', 8084, 'remove=&id=0', 'remove=&id=2', 'id=3&up=' ],
	[ 'one comes', 8084, 'remove=&id=3', 'remove=&id=0',
		'add=&server=127.0.0.1:8084' ],
	[ 'one moves', 8085, 'remove=&id=0', 'id=2&server=127.0.0.1:8085&up=' ],
	[ 'it leaves', 8083, 'remove=&id=1', 'id=2&up=' ],
);

$t->plan(2 * @METHODS * @ROWS);

$t->write_file_expand('nginx.conf', <<'CONF', UPSTREAMS => join '',
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    %%UPSTREAMS%%

    server {
        listen 127.0.0.1:8080 reuseport;

        add_header X-Tried $upstream_addr;

        %%CONTROL%%

        %%BY_NAME%%
    }
}
CONF
	map {
		my ($method, $row) = @$_;
		"upstream ${method}_$row { zone ${method}_$row 64k; $METHODS{$method} "
			. 'server 127.0.0.1:8081 down; server 127.0.0.1:8082 max_fails=0; '
			. "server 127.0.0.1:8083 down; server 127.0.0.1:8084 down; }\n";
	} map { my $method = $_; map { [ $method, $_ ] } 0 .. $#ROWS } @METHODS);

my $failing = $t->backend('127.0.0.1:8082', hang => 1);
$t->backend("127.0.0.1:$_") for 8081, 8083 .. 8085;
$t->run();
$t->leak_keys('/status', 8080,
	pages => { map { my $m = $_; map { +"${m}_$_" => 1 } 0 .. $#ROWS } @METHODS });

for my $method (@METHODS) {
	retried($method, $_) for 0 .. $#ROWS;
}

sub retried ($method, $row) {
	my ($text, $wanted, @changes) = @{ $ROWS[$row] };
	my $name = "${method}_$row";

	my $before = $failing->count();
	my $handle = http_start(uri => "/u/$name?key=a");
	$t->wait_for(sub { $failing->count() > $before }, 5,
		"$method: $text: a first try");

	for my $args (@changes) {
		my $r = control("/control?upstream=$name&$args");
		die "$name: $args: " . $r->told() . "\n"
			if $r->status() != 200;
	}

	$failing->stop();
	my $r = http_finish($handle);
	$failing->restart();
	is($r->body(), $wanted, "$method: $text");
	is($t->logical($r->header('X-Tried') // ''),
		"127.0.0.1:8082, 127.0.0.1:$wanted", "$method: $text: where it was");
}
