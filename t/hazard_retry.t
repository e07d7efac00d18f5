#!/usr/bin/env perl

# Tests under load: requests that are tried on one server after the other
# while the lists of servers change under them.  nginx keeps the servers that
# a request tried as bits of words, and refuses to choose once the lists
# changed: the bits must grow with the lists, and the refusal reach no client.
#
# TEST_NGINX_LONG is the time in seconds that all methods share.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use List::Util qw/shuffle/;
use Test::More;

use Test::Nginx;
use Test::Nginx::Churn qw/outcome/;

# Servers: a word of nginx's has 64 bits.
use constant { FEW => 60, MORE => 70, MANY => 130 };

my $long = $ENV{TEST_NGINX_LONG};
my $seconds = $long ? $long / 2 : 3;
my $timeout = 120 + 2 * ($long // 0);
# Of a long run the figures are wanted, too.
my $say = $long ? \&diag : \&note;

my $t = Test::Nginx->new(timeout => $timeout)->has(qw/
	module http proxy upstream_zone upstream_keepalive upstream_least_conn
	upstream_ip_hash upstream_hash upstream_random
/);

my @methods = (
	[ 'round_robin', '' ],
	[ 'least_conn', 'least_conn;' ],
	[ 'ip_hash', 'ip_hash;' ],
	[ 'hash', 'hash $request_id;' ],
	[ 'consistent', 'hash $request_id consistent;' ],
	[ 'random', 'random;' ],
	[ 'random_two', 'random two;' ],
);

push @methods, [ 'least_time', 'least_time header;' ]
	if $t->has_module_built('upstream_least_time');
push @methods, [ 'sticky', 'sticky cookie route;' ]
	if $t->has_module_built('sticky');

my @names = map { $_->[0] } @methods;
$t->plan(11);

# Of ten servers one answers, one fails after a while, eight refuse.  All are
# tried again and again.
my @all = map {
	"127.0.0.$_:" . ($_ % 10 == 0 ? 8081 : $_ % 10 == 5 ? 8085 : 8089);
} 1 .. MANY;

# Two actors add and remove what answers and what refuses.
my @own = map { my $host = "127.0.1.$_"; [
	"$host:8081", "$host:8089", "$host:8088",
] } 1, 2;

# In "first", the server that most requests are sent to fails late.
my $upstreams = join '', map {
	my ($name, $balancer) = @$_;
	my $servers = join "\n", map { "        server $_ max_fails=0;" }
		@all[ 0 .. FEW - 1 ];
	<<"BLOCK" } @methods;
    upstream grow_$name {
        zone grow_$name 256k;
        upstream_capacity @{[ MANY ]};
        $balancer
$servers
        keepalive 16;
    }

    upstream first_$name {
        zone first_$name 128k;
        $balancer
        server 127.0.0.5:8085 weight=20 max_fails=0;
        server 127.0.0.10:8081;
        server 127.0.0.20:8081;
        keepalive 16;
    }

BLOCK

$t->write_file_expand('nginx.conf', <<'CONF', UPSTREAMS => $upstreams);
%%TEST_GLOBALS%%
worker_processes 4;
events { worker_connections 1024; }
http {
    %%TEST_GLOBALS_HTTP%%
    keepalive_requests 1000000;

    log_format attempts '$status $request_uri $upstream_addr';
    access_log %%TESTDIR%%/attempts.log attempts;

%%UPSTREAMS%%
    server {
        # spreads clients over the workers evenly
        listen 127.0.0.1:8080 reuseport;

        %%KEEPALIVE%%
        proxy_next_upstream error timeout http_503;

        location ~ ^/(?<group>\w+)/$ {
            proxy_pass http://$group;
        }

        %%CHURN%%
    }
}
CONF

my $backends = Test::Nginx->servers($timeout,
	[ [ grep { /:8081\z/ } @all, map { @$_ } @own ],
		'location / { return 200 "$server_port\n"; }' ],
	[ [ grep { /:8085\z/ } @all ],
		'location / { proxy_pass http://127.0.0.1:8087; }' ]);

my $failing = $backends->backend('127.0.0.1:8087', status => 503,
	delay => 0.1);

$backends->run();
$t->leak_keys('/upstreamstatus', port(8080));
$t->run();

grow();
first();

sub grow {
	my $load = load('grow');
	my $end = now() + $seconds;
	my (@refused, %most);
	my $changes = 0;

	# At least once for each method.
	do {
		for my $name (@names) {
			for my $to (MORE, MANY) {
				my $from = $to == MANY ? MORE : FEW;
				for my $server (@all[ $from .. $to - 1 ]) {
					push @refused, change("grow_$name",
						"add=&server=$server&max_fails=0");
				}
				select undef, undef, undef, 0.02;
			}

			$most{$name} = number("grow_$name");
			my @leave = shuffle(@all[ FEW .. MANY - 1 ]);
			push @refused, change("grow_$name", "remove=&server=$_")
				for @leave;
			$changes += 2 * @leave;
		}
	} while (now() < $end);

	my $got = $load->finish(now => 1);
	my $tried = tried('grow');

	$say->("grow: $changes changes, $got->{total} requests, each tried on ",
		sprintf('%.1f', $tried->{attempts} / $got->{total}),
		" servers, $tried->{most} at most");

	is_deeply(\@refused, [], 'growing: each change was made');
	is_deeply(\%most, { map { $_ => MANY } @names }, 'growing: servers');
	is($got->{failed}, 0, 'growing: no request failed')
		or diag(explain(@$got{qw/by_status errors/}), @{ $tried->{failed} });
	is_deeply($tried->{garbage}, [], 'growing: attempts as they were');
	cmp_ok($tried->{attempts}, '>', 3 * $got->{total},
		'growing: requests were tried again and again');
}

sub first {
	my $mark = $t->log_mark();
	my $late = $failing->count();
	my $churn = Test::Nginx::Churn->start(
		dir => $t->testdir(), seconds => $seconds,
		rate => 40 * @names / @own,
		members => [ map { my $servers = $_; [ map { +{
			upstream => "first_$_", servers => $servers, weights => [ 1, 2 ],
		} } @names ] } @own ],
	);
	my $load = load('first');
	my $changes = $churn->finish();
	my $got = $load->finish(now => 1);
	my $tried = tried('first');
	$late = $failing->count() - $late;

	$say->("first: $changes->{acked} changes, $got->{total} requests, ",
		"$late failures of the first server");

	my $model = $changes->{model};
	is_deeply([ $changes->{failed}, $changes->{wrong}, outcome(
		get_json('/upstreamstatus'), $model, map { @$_ } @own),
	], [ {}, [] ], 'failing first: each change was made');
	is($got->{failed}, 0, 'failing first: no request failed')
		or diag(explain(@$got{qw/by_status errors/}), @{ $tried->{failed} });
	is_deeply([ $t->grep_log(qr/no live upstreams/, $mark) ], [],
		'failing first: there always was a server to choose');
	is_deeply($tried->{garbage}, [], 'failing first: attempts as they were');
	is_deeply($tried->{twice}, [], 'failing first: none tried it twice');
	cmp_ok($late, '>', $got->{total} / 4, 'failing first: it was tried');

	for my $upstream (sort keys %$model) {
		change($upstream, "remove=&server=$_")
			for sort keys %{ $model->{$upstream} };
	}
}

sub load ($what) {
	return $t->load(
		uri => sub ($n) { "/${what}_$names[ $n % @names ]/" },
		seconds => $timeout, concurrency => 8 * @names, keepalive => 1,
	);
}

# What was answered in place of success.
sub change ($upstream, $args) {
	my $r = control("/upstreamcontrol?upstream=$upstream&$args");
	return $r->status() == 200 ? () : $r->told();
}

sub number ($upstream) {
	return scalar @{ get_json("/upstreamstatus?upstream=$upstream")
		->{upstreams}{$upstream}{peers} };
}

# What the log says of the requests to these upstreams.
sub tried ($what) {
	my %found = (attempts => 0, most => 0, failed => [], garbage => [],
		twice => []);
	my $keep = sub ($list, $line) {
		push @{ $found{$list} }, $line if @{ $found{$list} } < 10;
	};

	for my $line (split /^/, $t->logical($t->read_file('attempts.log'))) {
		my ($status, $addresses) = $line =~ m{^(\d+) /${what}_\S+ (.*)} or next;
		my @attempts = split /, /, $addresses;
		my $late = grep { $_ eq '127.0.0.5:8085' } @attempts;

		$found{attempts} += @attempts;
		$found{most} = @attempts if @attempts > $found{most};
		$keep->('failed', $line) if $status != 200;
		$keep->('twice', $line) if $late > 1;
		$keep->('garbage', $line)
			if grep { !/\A127\.0\.[01]\.\d+:80\d\d\z/ } @attempts;
	}

	return \%found;
}
