#!/usr/bin/env perl

# Tests for what many changes in a row must not upset: the shares that weights
# give, and the limit of connections.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()
	->has(qw/module http proxy upstream_zone upstream_least_conn/)
	->plan(2 * 4 + 2 * 6);

# Seconds that the backend takes for a request.
use constant DELAY => 0.03;

$t->write_file_expand('nginx.conf', <<'CONF', UPSTREAMS => join '',
%%TEST_GLOBALS%%
worker_processes 4;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    %%UPSTREAMS%%

    server {
        # Gives each worker its share of the connections.
        listen 127.0.0.1:8080 reuseport backlog=1024;

        %%CONTROL%%

        %%BY_NAME%%
    }
}
CONF
	map { my ($name, $method) = @$_; <<"UPSTREAM" } [ rr => '' ], [ least => 'least_conn;' ]);
upstream ${name}_weight {
    zone ${name}_weight 64k;
    $method
    server 127.0.0.1:8081 weight=1000;
    server 127.0.0.1:8082 weight=1000;
}
upstream ${name}_conns {
    zone ${name}_conns 64k;
    $method
    server 127.0.0.1:@{[ $name eq 'rr' ? 8083 : 8084 ]} max_conns=1;
    server 127.0.0.1:8082 backup;
}
UPSTREAM

$t->backend("127.0.0.1:$_") for 8081, 8082;
my %slow = (
	rr => $t->backend('127.0.0.1:8083', delay => DELAY),
	least => $t->backend('127.0.0.1:8084', delay => DELAY),
);
$t->run();
$t->leak_keys('/status', 8080);

weights($_) for qw/rr least/;
conns($_) for qw/rr least/;

sub act ($name, $args) {
	return control("/control?upstream=$name&$args")->status();
}

# One at a time where the number of requests under way counts before weights.
sub shares ($name, $n) {
	return burst(uri => "/u/$name", n => $n,
		concurrency => $name =~ /least/ ? 1 : 4)->{by_body};
}

# What a weight was is forgotten with it, although the numbers by which nginx
# takes turns are as large as the weights.
sub weights ($method) {
	my $name = "${method}_weight";

	shares($name, 100);
	act($name, 'server=127.0.0.1:8081&weight=1');
	my $got = shares($name, 500);
	cmp_ok($got->{8081} // 0, '<=', 25, "$name: hardly any with a weight of 1");
	act($name, 'server=127.0.0.1:8081&weight=1000');
	$got = shares($name, 2000);
	cmp_ok(abs($got->{8081} - 1000), '<=', 50, "$name: its half with 1000");

	# Not the whole of a turn is over when the weights change again.
	act($name, "server=127.0.0.1:@{[ 8081 + $_ % 2 ]}&weight="
		. ($_ % 3 ? 1 : 65_535)) && shares($name, 3) for 1 .. 20;
	act($name, 'servers=127.0.0.1:8081,127.0.0.1:8082&weight=1000');
	$got = shares($name, 1000);
	cmp_ok(abs($got->{8081} - 500), '<=', 25, "$name: after many changes");
	is($got->{8081} + $got->{8082}, 1000, "$name: no request was lost");
}

# The limit holds over all workers, whatever else changes, and a server that had
# too many requests is free when they are done.
sub conns ($method) {
	my $name = "${method}_conns";
	my $args = 'server=127.0.0.1:' . ($method eq 'rr' ? 8083 : 8084);
	my $load = $t->load(uri => "/u/$name", seconds => 20, concurrency => 50);
	my %status;

	for my $round (1 .. 20) {
		$status{ act($name, "$args&$_") }++
			for 'down=', 'up=', 'weight=5', 'drain=', 'up=&weight=1';
		select undef, undef, undef, DELAY;
	}

	my $got = $load->finish(now => 1);
	my @times = sort { $a <=> $b } map { $_->{time} } $slow{$method}->requests();
	my @close = grep { $times[$_] - $times[$_ - 1] < DELAY } 1 .. $#times;

	is_deeply(\%status, { 200 => 100 }, "$name: all changes were made");
	is($got->{failed}, 0, "$name: no request was lost");
	cmp_ok(scalar @times, '>', 10, "$name: it served");
	is(scalar @close, 0, "$name: never two at a time");

	my $peer = get_json("/status?upstream=$name")->{upstreams}{$name}{peers}[0];
	is_deeply([ @$peer{qw/active state max_conns/} ], [ 0, 'up', 1 ],
		"$name: it is free");
	is_deeply(burst(uri => "/u/$name", n => 10, concurrency => 1)->{by_body},
		{ $method eq 'rr' ? 8083 : 8084, 10 }, "$name: and serves");
}
