#!/usr/bin/env perl

# Tests for a server that leaves and returns while requests are under way on it:
# they count for it again, in the limit of its connections and in the status.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/
	module http proxy upstream_zone upstream_least_conn upstream_hash
	upstream_ip_hash upstream_random
/);

# How long the requests take, and how many the server may have.
use constant { SECONDS => 5, LIMIT => 3 };

my $A = '127.0.0.1:8081';
my $ADD = "add=&server=$A&max_conns=" . LIMIT;
my $LIST = "server $A max_conns=" . LIMIT . ";\n";

# Name, what the upstream has besides its server, and what is done: changes, or
# lists that replace all servers.
my @ROWS = (
	(map { [ $_->[0], $_->[1], "remove=&server=$A", $ADD ] }
		[ round_robin => '' ],
		[ least_conn => 'least_conn;' ],
		[ ip_hash => 'ip_hash;' ],
		[ hash => 'hash $request_uri;' ],
		[ consistent => 'hash $request_uri consistent;' ],
		[ random => 'random;' ],
		[ two => 'random two least_conn;' ]),
	[ again => '', ("remove=&server=$A", $ADD) x 3 ],
	[ moved => '', 'id=0&server=127.0.0.1:8082',
		"id=0&server=$A&max_conns=" . LIMIT ],
	[ list => '', \"server 127.0.0.1:8082 down;\n",
		\"server 127.0.0.1:8082 down;\n$LIST" ],
	[ emptied => '', \'', \$LIST ],
	# Where the names are kept, one that is written otherwise is the same.
	[ renamed => 'hash $request_uri consistent;', "remove=&server=localhost:8081",
		$ADD ],
	[ backup => 'server 127.0.0.1:8082 down;', "remove=&server=$A",
		"$ADD&backup=" ],
	($t->has_module_built('upstream_least_time') ? [ least_time =>
		'least_time header inflight;', "remove=&server=$A", $ADD ] : ()),
	# What sessions know it by is the same again.
	($t->has_module_built('sticky') ? (
		[ sticky => 'sticky cookie c;', "remove=&server=$A", $ADD ],
		[ named => 'sticky cookie c;', 'id=0&server=127.0.0.1:8082',
			"id=0&server=$A&max_conns=" . LIMIT ]) : ()),
);
my %TEXT = (renamed => 'localhost:8081');
my %ROLE = (backup => ' backup', named => ' route=one');

$t->plan(6 * @ROWS + 9);

$t->write_file_expand('nginx.conf', <<'CONF', UPSTREAMS => join '',
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    %%UPSTREAMS%%

    upstream groups {
        zone groups 128k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082 backup;
    }

    server {
        listen 127.0.0.1:8080 reuseport;

        proxy_read_timeout 20s;

        %%CONTROL%%

        location ~ ^/(?:slow|quick)/(?<name>\w+)$ {
            proxy_pass http://$name;
        }
    }
}
CONF
	map { "upstream $_->[0] { zone $_->[0] 128k; $_->[1] server "
		. ($TEXT{ $_->[0] } // $A) . ($ROLE{ $_->[0] } // '') . "; }\n" } @ROWS);

my $backend = $t->backend($A, uris => { map { ("/slow/$_" => {
	body => 'slow', delay => SECONDS }) } 'groups', map { $_->[0] } @ROWS });
$t->backend('127.0.0.1:8082');
$t->run();
$t->leak_keys('/status', 8080);

# All at the same time, since each takes as long as its requests.
my %slow = map { $_->[0] => begin($_->[0]) } @ROWS;
returns(@$_) for @ROWS;
groups();
ends($_->[0]) for @ROWS;

sub upstream ($name) {
	return get_json("/status?upstream=$name&verbose=")->{upstreams}{$name};
}

sub act ($name, $change) {
	return ref $change
		? http_request(uri => "/control?upstream=$name&replace=&force=",
			method => 'POST', body => $$change, map_ports => 1,
			headers => { 'Content-Type' => 'text/plain' })->status()
		: control("/control?upstream=$name&$change")->status();
}

# The peer of the server, as the status shows it.
sub peer ($name) {
	return grep { $t->logical($_->{name}) eq $A } @{ upstream($name)->{peers} };
}

sub begin ($name, $number = LIMIT) {
	my @handles = map { http_start(uri => "/slow/$name", timeout => 20) } 1 .. $number;
	$t->wait_for(sub { (peer($name))[0]{active} == $number }, 5,
		"$name: under way");

	return \@handles;
}

sub returns ($name, $with, @changes) {
	is_deeply([ map { act($name, $_) } @changes ], [ (200) x @changes ],
		"$name: it leaves and returns");

	my $shown = upstream($name);
	is_deeply([ map { [ @$_{qw/active max_conns fails/} ] } peer($name) ],
		[ [ LIMIT, LIMIT, 0 ] ], "$name: its requests are its own again");
	is($shown->{zombies}, 0, "$name: nothing else has them");
	is(http_get("/quick/$name")->status(), 502, "$name: and no more than it may have");
}

sub ends ($name) {
	is_deeply([ map { http_finish($_, timeout => 20)->body() } @{ $slow{$name} } ],
		[ ('slow') x LIMIT ], "$name: they end as if nothing had happened");
	is_deeply([ (map { $_->{active} } peer($name)),
		http_get("/quick/$name")->body() ], [ 0, '8081' ], "$name: and make room");
}

# Requests are given back to the list that they are from, so that the same
# address in the other list is another server's.
sub groups {
	my $slow = begin('groups', 1);

	is(act('groups', $_), 200, "groups: $_")
		for "remove=&server=$A", "$ADD&backup=";
	my $shown = upstream('groups');
	is_deeply([ $shown->{zombies}, $shown->{leaks}{primary}{zombie_conns},
		map { $_->{active} } peer('groups') ], [ 1, 1, 0 ],
		'groups: as a backup it is another one');
	is(act('groups', $_), 200, "groups: $_") for "remove=&server=$A", $ADD;
	$shown = upstream('groups');
	is_deeply([ $shown->{zombies}, map { $_->{active} } peer('groups') ], [ 0, 1 ],
		'groups: as a primary it is the same one');
	is(http_finish($_, timeout => 20)->body(), 'slow', 'groups: ends') for @$slow;
	is((peer('groups'))[0]{active}, 0, 'groups: nothing is left');
	is_deeply(upstream('groups')->{leaks}{faults}, [], 'groups: no faults');
}
