#!/usr/bin/env perl

# Tests under load: servers are added, removed, readdressed, taken down and up
# and given other weights, hundreds of times a second, by two clients at once
# and under each balancing method, while fast, slow and refusing servers take
# requests over connections that are kept.  No request fails, since there is
# always a server that answers; nothing is left behind.
#
# nginx that fills freed memory with junk (make junk) finds more here.
#
# TEST_NGINX_LONG is the time in seconds for each method, TEST_NGINX_RATE the
# changes a second to aim at, TEST_NGINX_METHODS a list of methods to try.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Socket qw/inet_aton/;
use Test::More;

use Test::Nginx;
use Test::Nginx::Churn qw/outcome/;
use Test::Nginx::Leaks;
use Test::Nginx::Process qw/spawn alive wait_until end_process/;

# Connections that change servers, of each of the two clients.
use constant ACTORS => 4;

# How many of them may add backups where a list has slots, of which backups have
# a quarter.
use constant BACKUPS => 3;

# Each worker closes idle connections to servers that left within a second.  The
# limit is three, counted in polls: when the machine stands still or is taken by
# others, the test is held up as the workers are, and no time is lost to them.
use constant POLL => 0.05;
use constant POLLS => 60;

my $long = $ENV{TEST_NGINX_LONG};
my $seconds = $long || 1;
my $rate = $ENV{TEST_NGINX_RATE} // ($long ? 1000 : 500);

# What an actor may add: the third answers late, the others refuse.
my @own = map { my $host = '127.0.0.1' . $_; [
	"$host:8081", "$host:8082", "$host:8083", "$host:8088", "$host:8089",
] } 1 .. 2 * ACTORS;

# Name, what stands in the block, whether it may have backups.  "failover" has
# backups only that always answer, the others two primaries.
my @methods = (
	[ 'round_robin', '', 1 ],
	[ 'least_conn', 'least_conn;', 1 ],
	[ 'ip_hash', 'ip_hash;', 0 ],
	[ 'hash', 'hash $request_id;', 0 ],
	[ 'consistent', 'hash $request_id consistent;', 0 ],
	[ 'random', 'random;', 0 ],
	[ 'random_two', 'random two;', 0 ],
	[ 'failover', '', 1 ],
);

my $t = Test::Nginx->new(timeout => 120 + 20 * ($seconds + 5))->has(qw/
	module http proxy realip upstream_zone upstream_keepalive
	upstream_least_conn upstream_ip_hash upstream_hash upstream_random wrk
/);

push @methods, [ 'least_time', 'least_time header;', 1 ]
	if $t->has_module_built('upstream_least_time');

push @methods,
	[ 'sticky', 'sticky cookie route;', 1 ],
	[ 'sticky_consistent',
		'hash $request_id consistent; sticky cookie route;', 0 ]
	if $t->has_module_built('sticky');

if (my $wanted = $ENV{TEST_NGINX_METHODS}) {
	my %wanted = map { $_ => 1 } split /,/, $wanted;
	@methods = grep { $wanted{ $_->[0] } } @methods;
}

my $sticky = grep { $_->[1] =~ /sticky/ } @methods;
$t->plan(9 * @methods + $sticky);

# Two are always there.  Two more, of actors, are there at the beginning.
my $upstreams = join '', map {
	my $backup = $_->[0] eq 'failover' ? ' backup' : '';
	<<"BLOCK" } @methods;
    upstream $_->[0] {
        zone $_->[0] 1m;
        $_->[1]
        server 127.0.0.1:8081$backup;
        server 127.0.0.1:8082$backup;
        server $own[0][0];
        server $own[-1][3];
        keepalive 16;
    }

BLOCK

$t->write_file_expand('nginx.conf', <<'CONF', UPSTREAMS => $upstreams);
%%TEST_GLOBALS%%
worker_processes 4;
events { worker_connections 1024; }
http {
    %%TEST_GLOBALS_HTTP%%
    keepalive_requests 100000000;

    # Each attempt is an address, whatever became of its server.
    map $upstream_addr $garbage {
        "~^127\.0\.0\.\d+:\d+(, 127\.0\.0\.\d+:\d+)*$" "";
        default 1;
    }
    # Clients that leave at the end have no reply.
    map $status$garbage $bad { 200 ""; 499 ""; default 1; }
    map $upstream_addr $several { ~, 1; default ""; }
    log_format bad '$time_iso8601 $status $request_uri '
                   '"$upstream_addr" $upstream_status $pid';
    access_log %%TESTDIR%%/bad.log bad if=$bad;
    log_format one '.';
    access_log %%TESTDIR%%/again.log one if=$several;

%%UPSTREAMS%%
    server {
        # spreads clients over the workers evenly
        listen 127.0.0.1:8080 reuseport;
        set_real_ip_from 127.0.0.1;
        real_ip_header X-Real-IP;

        %%KEEPALIVE%%

        location ~ ^/(?<group>\w+)/$ {
            proxy_pass http://$group;
        }

        %%CHURN%%
    }
}
CONF

my $listen = join '', map { "        listen $_;\n" }
	'127.0.0.1:8081', '127.0.0.1:8082', map { @$_[0, 1] } @own;
my $listen_slow = join '', map { "        listen $_->[2];\n" } @own;
my $backends = Test::Nginx->new(timeout => 120 + 20 * ($seconds + 5));

$backends->write_file_expand('nginx.conf', <<'CONF',
%%TEST_GLOBALS%%
worker_processes 1;
events { worker_connections 4096; }
http {
    %%TEST_GLOBALS_HTTP%%
    access_log off;
    keepalive_requests 100000000;

    server {
%%LISTEN%%
        location / { return 200 "$server_port\n"; }
    }

    split_clients $request_id $late { 33% 100; 33% 200; * 300; }

    server {
%%SLOW%%
        location / { proxy_pass http://127.0.0.1:8086/$late; }
    }
}
CONF
	LISTEN => $listen, SLOW => $listen_slow);

my $slow = $backends->backend('127.0.0.1:8086',
	uris => { map { ("/$_" => { delay => $_ / 1000 }) } 100, 200, 300 });

# Clients out of many networks, that keep the cookies they are given.
$t->write_file('wrk.lua', <<'LUA');
local n, cookie = 0, nil
function request()
	n = n + 1
	local headers = {
		["X-Real-IP"] = "10." .. n * 7 % 251 .. "." .. n % 239 .. ".1"
	}
	-- some begin anew
	if cookie and n % 4 > 0 then headers["Cookie"] = cookie end
	return wrk.format("GET", nil, headers)
end
LUA
$t->write_file('sticky.lua', $t->read_file('wrk.lua') . <<'LUA');
function response(status, headers)
	local set = headers["Set-Cookie"]
	if set then cookie = string.match(set, "[^;]*") end
end
LUA

# The first list of backups of "round_robin" is made at run time, and stays.
my @pages = (pages => { map { $_ => 1 } qw/round_robin least_conn/,
	qw/least_time sticky/ });
$backends->run();
$t->leak_keys('/upstreamstatus', port(8080), @pages);
$t->run();

my $leaks = Test::Nginx::Leaks->new(uri => '/upstreamstatus',
	port => port(8080), @pages);
$leaks->baseline();

method(@$_) for @methods;

sub method ($name, $balancer, $backups) {
	my $sticky = $balancer =~ /sticky/;
	my $again = -s $t->testdir() . '/again.log';
	my $before = upstream($name)->{revision};
	my $mark = $t->log_mark();

	my $churn = Test::Nginx::Churn->start(dir => $t->testdir(),
		seconds => $seconds, rate => $rate / 2, members => members($name, $balancer, $backups));
	my $wrk = wrk($name, $sticky ? 'sticky' : 'wrk');
	my $cookies = $sticky ? cookies($name, $churn) : undef;
	my $changes = $churn->finish();
	my $load = $wrk->();
	$again = (-s $t->testdir() . '/again.log') - $again;

	# Of a long run the figures are wanted, too.
	my $say = $long ? \&diag : \&note;
	$say->(sprintf '%s: %d changes in %.1f s, %.0f/s; %d requests, %.0f/s; '
		. '%d tried more than one server', $name, $changes->{acked},
		$changes->{seconds}, $changes->{acked} / $changes->{seconds},
		$load->{total}, $load->{total} / $seconds, $again / 2);

	is($load->{failed}, 0, "$name: no request failed")
		or diag($load->{text}, attempts($name));
	is_deeply([ attempts($name) ], [], "$name: each attempt was logged");
	is_deeply([ $t->grep_log(qr/no live upstreams/, $mark) ], [],
		"$name: there always was a server to choose");
	cmp_ok($again, '>', 0, "$name: requests were tried again");
	is_deeply($cookies, { 1 => $cookies->{1} }, "$name: one cookie in each reply")
		if $sticky;

	is_deeply([ $changes->{failed}, $changes->{wrong} ], [ {}, [] ],
		"$name: each change was made, and its reply shows it");
	cmp_ok($changes->{acked}, '>', 0.1 * $rate * $seconds, "$name: changes");
	cmp_ok(scalar keys %{ $changes->{workers} }, '>', 1,
		"$name: changes through several workers");

	my $status = get_json('/upstreamstatus');
	is_deeply([ $status->{upstreams}{$name}{revision} - $before,
		outcome($status, $changes->{model}, map { @$_ } @own) ],
		[ $changes->{acked} ], "$name: all of them, and nothing else");

	restore($name);
	is_deeply([ $leaks->problems() ], [], "$name: leak keys");
}

# For each of two clients its actors.
sub members ($name, $balancer, $backups) {
	# A point of a consistent hash takes its time to compute, and there are
	# 160 of them to a unit.
	my $weights = $balancer =~ /consistent/ ? [ 1, 2 ] : [ 1, 2, 5, 20 ];

	my $with_backups = $t->has_version('1.27.3') ? @own : BACKUPS;
	my @actors = map { +{
		upstream => $name, servers => $own[$_], weights => $weights,
		backups => $backups && $_ < $with_backups, present => $_ == 0 ? [ $own[0][0] ]
			: $_ == $#own ? [ $own[-1][3] ] : [],
	} } 0 .. $#own;

	return [ [ @actors[ 0 .. ACTORS - 1 ] ], [ @actors[ ACTORS .. $#own ] ] ];
}

# Runs wrk; what is returned waits for its end.
sub wrk ($name, $script) {
	my $file = $t->testdir() . "/wrk-$name";
	my $duration = int($seconds + 0.5);
	my $pid = spawn(out => $file, seconds => $seconds + 30, exec => [
		'wrk', '-t', 1, '-c', 64, '-d', "${duration}s", '--timeout', '10s',
		'-s', $t->testdir() . "/$script.lua",
		'http://127.0.0.1:' . port(8080) . "/$name/",
	]);

	return sub {
		wait_until(sub { !alive($pid) }, $seconds + 25) or end_process($pid);
		my $text = $t->read_file("wrk-$name");
		my ($total) = $text =~ /(\d+) requests in / or die "wrk: $text\n";
		my $failed = 0;
		$failed += $1 if $text =~ /Non-2xx or 3xx responses: (\d+)/;
		if (my ($errors) = $text =~ /Socket errors: (.*)/) {
			$failed += $_ for $errors =~ /(\d+)/g;
		}
		return { total => $total, failed => $failed, text => $text };
	};
}

# How many replies have how many cookies, as long as there are changes.
sub cookies ($name, $churn) {
	my %count;

	while ($churn->running()) {
		my $reply = http_get("/$name/");
		$count{ @{ $reply->headers()->{'set-cookie'} // [] } }++;
		select undef, undef, undef, 0.005;
	}

	return \%count;
}

sub upstream ($name) {
	return get_json("/upstreamstatus?upstream=$name&verbose=")
		->{upstreams}{$name};
}

# As configured: the servers that were added at run time leave before those of
# the configuration come back, so that these fit where they were.
sub restore ($name) {
	my %always = map { +"127.0.0.1:$_" => 1 } port(8081), port(8082);

	for my $peer (@{ upstream($name)->{peers} }) {
		next if $always{ $peer->{server} };
		my $r = control("/upstreamcontrol?upstream=$name&remove="
			. "&server=$peer->{server}");
		fail("$name: removal") unless $r->status() == 200;
	}

	$t->wait_for(sub { upstream($name)->{zombies} == 0 }, 5,
		"$name: no request uses what was removed");

	my $polls = 0;
	while (to_those_that_left() && $polls++ < POLLS) {
		select undef, undef, undef, POLL;
	}
	fail("$name: connections to servers that left are closed") if $polls > POLLS;

	for my $server ($own[0][0], $own[-1][3]) {
		my $r = control("/upstreamcontrol?upstream=$name&add=&server=$server");
		fail("$name: addition") unless $r->status() == 200;
	}
}

# Open connections to the addresses of actors.
sub to_those_that_left () {
	my %left = map { $_ => 1 } map { remote($_) } map { @$_ } @own;
	return grep { $left{$_} } connections();
}

# An address as the kernel's table of connections shows it.
sub remote ($server) {
	my ($host, $port) = $server =~ /\A(.*):(\d+)\z/;
	return sprintf '%08X:%04X', unpack('L', inet_aton($host)), port($port);
}

# What established connections lead to.
sub connections () {
	open my $fh, '<', '/proc/net/tcp' or die "/proc/net/tcp: $!\n";
	return map { /^\s*\d+: \S+ (\S+) 01 / ? $1 : () } <$fh>;
}

# The first of the requests that failed, or whose attempts are garbage.
sub attempts ($name) {
	my @lines = grep { m{ /$name/ } } split /^/,
		$t->logical($t->read_file('bad.log'));
	splice @lines, 20 if @lines > 20;

	return @lines;
}
