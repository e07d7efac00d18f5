#!/usr/bin/env perl

# Tests for changes that are asked for at the same moment, of several workers:
# each is planned by what the one before it left.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

use constant ROUNDS => 400;

my $t = Test::Nginx->new()->has(qw/module http proxy upstream_zone/)->plan(4);

$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 4;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream guarded {
        zone guarded 64k;
        upstream_guard min=1;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
    }

    upstream members {
        zone members 256k;
        server 127.0.0.1:8081;
    }

    server {
        listen 127.0.0.1:8080 reuseport;
        location = /status { upstream_status; }
        location = /control { upstream_control; }
    }
}
CONF

$t->leak_keys('/status', 8080);
$t->run();

my @ports = (8081, 8082);
my ($left, $added, $there) = (0, 0, 0);
my $new = '127.0.0.1:' . port(8091);

for my $round (1 .. ROUNDS) {
	my $down = burst(uri => sub ($i) {
		'/control?upstream=guarded&down=&server=127.0.0.1:' . port($ports[$i]);
	}, n => 2, concurrency => 2);

	my @up = grep { $_->{state} eq 'up' }
		@{ get_json('/status?format=json')->{upstreams}{guarded}{peers} };

	$left++ if @up == 1 && ($down->{by_status}{200} // 0) == 1;
	control("/control?upstream=guarded&server=127.0.0.1:$_&up=") for @ports;

	my $add = burst(
		uri => "/control?upstream=members&add=&server=$new",
		n => 3, concurrency => 3,
	);
	my @same = grep { $_->{name} eq $new }
		@{ get_json('/status?format=json')->{upstreams}{members}{peers} };

	$added++ if ($add->{by_status}{200} // 0) == 1;
	$there++ if @same == 1;
	control("/control?upstream=members&remove=&server=$new");
}

is($left, ROUNDS, 'a server is left, whoever takes two down at once');
is($added, ROUNDS, 'of those that add a server at once one does');
is($there, ROUNDS, 'it is there once');

is(scalar @{ get_json('/status?format=json')->{upstreams}{members}{peers} }, 1,
	'all are gone');
