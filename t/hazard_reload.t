#!/usr/bin/env perl

# Tests under load: the configuration is reloaded twice a second while servers
# change.  No request and no change fails, old workers end, revisions only
# grow, and afterwards status and control agree.
#
# TEST_NGINX_LONG is the time in seconds.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;
use Test::Nginx::Churn qw/clients/;

my $seconds = $ENV{TEST_NGINX_LONG} || 6;
my $timeout = 150 + $seconds;

my $t = Test::Nginx->new(timeout => $timeout)->has(qw/
	module http proxy upstream_zone upstream_keepalive upstream_least_conn
	upstream_hash upstream_random
/)->plan(9);

# Name, what stands in the block.
my @methods = (
	[ 'round_robin', '' ],
	[ 'least_conn', 'least_conn;' ],
	[ 'consistent', 'hash $request_id consistent;' ],
	[ 'random', 'random;' ],
);
my @names = map { $_->[0] } @methods;

# 8081 and 8082 are always there; 8083 comes and goes; 8084 refuses.
my $upstreams = join '', map { <<"BLOCK" } @methods;
    upstream $_->[0] {
        zone $_->[0] 64k;
        $_->[1]
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8083;
        server 127.0.0.1:8084;
        keepalive 16;
    }

BLOCK

$t->write_file_expand('nginx.conf', <<'CONF', UPSTREAMS => $upstreams);
%%TEST_GLOBALS%%
worker_processes 4;
events { worker_connections 1024; }
http {
    %%TEST_GLOBALS_HTTP%%
    access_log off;

%%UPSTREAMS%%
    server {
        listen 127.0.0.1:8080;

        %%KEEPALIVE%%

        location ~ ^/(?<group>\w+)/(?<what>.*)$ {
            proxy_pass http://$group/$what;
        }

        %%CHURN%%
    }
}
CONF

my $backends = Test::Nginx->servers($timeout, [
	[ map { "127.0.0.1:$_" } 8081 .. 8083 ], <<'CONF' ]);
        location /fast { return 200 "$server_port\n"; }
        location /slow { proxy_pass http://127.0.0.1:8086; }
CONF

# Requests that keep old workers for a while.
$backends->backend('127.0.0.1:8086', delay => 0.2);

my %values;

for my $method (@methods) {
	my $name = $method->[0];
	my %common = (fail_timeout => [ 1, 10 ], max_fails => [ 0, 1, 3 ],
		weight => [ 1, 2, 3 ]);

	my %always = (%common, state => ['up']);
	my %any = (%common, state => [qw/up down drain/], max_conns => [ 0, 1, 50 ]);

	$values{$name} = {
		8081 => \%always, 8082 => \%always, 8083 => \%any, 8084 => \%any,
	};
}

$backends->run();
$t->run();

my @uris = map { ("/$_/fast", "/$_/fast", "/$_/slow") } @names;
my @loads = map {
	$t->load(uri => sub ($n) { $uris[ $n % @uris ] }, seconds => $seconds,
		concurrency => 16, keepalive => $_)
} 0, 1;
my $churn = Test::Nginx::Churn->start(dir => $t->testdir(), seconds => $seconds,
	clients => [ clients(\%values) ]);

my (%last, @backwards);
my $reloads = 0;
my $begin = now();

# The last one is over before the changes are.
while (now() < $begin + $seconds - 1) {
	$t->reload();
	$reloads++;
	look() while now() < $begin + 0.5 * $reloads;
}

$t->wait_for(sub { !$t->old_workers() }, 30, 'old workers end');

my $changes = $churn->finish();
my @results = map { $_->finish() } @loads;
look();

my ($total, $retried) = (0, 0);
$total += $_->{total}, $retried += $_->{retried} for @results;
note("$reloads reloads, $total requests, $retried of them sent again on a new ",
	"connection; $changes->{acked} changes");

cmp_ok($reloads, '>', $seconds / 2, 'reloads');
is_deeply([ map { $_->{failed} } @results ], [ 0, 0 ], 'no request failed')
	or diag(explain([ map { @$_{qw/by_status errors/} } @results ]));

is_deeply($changes->{failed}, {}, 'no change failed');
cmp_ok($changes->{acked}, '>', 20 * $seconds, 'changes');
is_deeply([ @{ $changes->{wrong} } ], [], 'replies show the changes');
is_deeply([ @backwards, @{ $changes->{backwards} } ], [],
	'revisions do not go back');

my @after = map { agree($_) } @names;
is_deeply([ grep { /revision/ } @after ], [], 'each change is a revision');
is_deeply([ grep { !/revision/ } @after ], [], 'status and control agree');

is(scalar(grep { http_get("/$_/fast")->status() == 200 } @names),
	scalar @names, 'requests afterwards');

# The zones of the upstreams are new.
$t->leak_keys('/upstreamstatus', port(8080));

# Revisions as they are now.
sub look () {
	my $all = get_json('/upstreamstatus')->{upstreams};

	for my $name (@names) {
		my $now = $all->{$name}{revision};
		push @backwards, "$name: $now after $last{$name}"
			if $now < ($last{$name} // 0);
		$last{$name} = $now;
	}
}

# A change of each server of an upstream must find it as it was shown.
sub agree ($name) {
	my @wrong;

	for my $port (8081 .. 8084) {
		my $server = '127.0.0.1:' . port($port);
		my ($before, $revision) = shown($name, $server);
		my $reply = get_json("/upstreamcontrol?upstream=$name&server=$server"
			. '&max_fails=7&format=json');
		my ($after) = shown($name, $server);
		my $told = words($reply->{server});

		push @wrong, "$name $server: revision $reply->{revision} after "
			. $revision if $reply->{revision} != $revision + 1;
		push @wrong, "$name $server: $told, was $before"
			if $told ne $before =~ s/max_fails=\d+/max_fails=7/r;
		push @wrong, "$name $server: $told, shown $after" if $told ne $after;
	}

	return @wrong;
}

sub shown ($name, $server) {
	my $upstream = get_json('/upstreamstatus')->{upstreams}{$name};
	my ($peer) = grep { $_->{server} eq $server } @{ $upstream->{peers} };

	return (words($peer), $upstream->{revision});
}

# What was wanted of a peer.  Its failures are its own.
sub words ($peer) {
	my $state = $peer->{state} =~ s/unavail/up/r;

	return join ' ', $state, map { "$_=$peer->{$_}" }
		qw/weight max_conns max_fails fail_timeout/;
}
