//! `--keep`: Envoy goes on running, and each save of the policy file is put live.

use std::net::TcpStream;
use std::time::Duration;

use crate::policy_file::Verdict;
use crate::stage::Stage;

/// Says how to play with it, and reports on edits until Ctrl-C, or until Envoy ends.
pub fn play(stage: &Stage) {
    // The file ends the demo with the bad edit in it.
    stage.file.save(&stage.policy);
    let _ = stage.file.verdict(Duration::from_secs(10));
    let (front, admin) = (stage.address(), stage.envoy.admin_address());
    println!(
        "
It goes on running, with the policy it started with.

  one request         curl -i http://{front}/shop
  600 in a row        curl -s -o /dev/null -w '%{{http_code}}\\n' 'http://{front}/shop?[1-600]' | sort | uniq -c
  a user              curl -i -H 'x-user: ann' http://{front}/account
  60 of that user     curl -s -o /dev/null -w '%{{http_code}}\\n' -H 'x-user: ann' 'http://{front}/account?[1-60]' | sort | uniq -c
  what was decided    curl -s 'http://{admin}/stats?filter=weir'
  the policy          {policy}
                      Change it in any editor: each save goes live, or is refused with the reason, here.
  Envoy's log         {log}

Ctrl-C ends it.
",
        policy = stage.file.path().display(),
        log = stage.envoy.directory().join("envoy.log").display(),
    );
    loop {
        match stage.file.verdict(Duration::from_millis(200)) {
            Some(Verdict::Live(took)) => {
                println!("accepted: live on every worker after {} ms", took.as_millis());
            }
            Some(Verdict::Same) => println!("unchanged: this is the policy in force"),
            Some(Verdict::Refused(reason)) => {
                println!("refused, the policy before it stays: {reason}");
            }
            None if TcpStream::connect(admin).is_err() => {
                println!("Envoy has ended; so does the demo");
                return;
            }
            None => {}
        }
    }
}
